-- Keeps what the latest comparison of a backend with its leases found, and adds up the orphans.
-- KEYS: 5 of the backend
-- ARGV: 4 found, 5 orphans, 6 lost
-- Returns: {'noted'}.
redis.call('HSET', KEYS[5], 'at', ARGV[1], 'found', ARGV[4], 'orphans', ARGV[5], 'lost', ARGV[6])
redis.call('HINCRBY', KEYS[5], 'ever', ARGV[5])
return { 'noted' }

-- Work that belongs to no task, lease or revocation is done: no longer due.
-- KEYS: 5 due
-- ARGV: 4 member
redis.call('ZREM', KEYS[5], ARGV[4])
return { 'settled' }

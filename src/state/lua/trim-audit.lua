-- Drops audit records that are in a file, up to one of them, and remembers how far.
-- ARGV: 4 stream id of the last record moved, 5 the id after it
redis.call('HSET', cellKey, 'trimmed', ARGV[4])
return redis.call('XTRIM', auditKey, 'MINID', ARGV[5])

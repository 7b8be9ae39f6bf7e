-- Something that may happen once, until a time.
-- KEYS: 5 its key
-- ARGV: 4 for how long it is remembered (ms)
-- Returns: 1 the first time, else 0.
return redis.call('SET', KEYS[5], '1', 'PX', ARGV[4], 'NX') and 1 or 0

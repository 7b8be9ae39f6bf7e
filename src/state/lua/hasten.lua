-- Makes credentials of a backend that are being revoked due now: it is back. One page of them.
-- KEYS: 5 due, 6 credentials of the backend
-- ARGV: 4 what their members of due begin with, 5 how many are done already, 6 page
-- Returns: how many.
local ids = redis.call('ZRANGE', KEYS[6], 3, 5, 'BYSCORE', 'LIMIT', ARGV[5], ARGV[6])
for at = 1, #ids do redis.call('ZADD', KEYS[5], 'LT', ARGV[1], ARGV[4] .. ids[at]) end
return #ids

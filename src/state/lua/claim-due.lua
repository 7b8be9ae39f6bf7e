-- Takes a page of what is due and moves it forward, so that nobody else takes it meanwhile and it comes back when its taker dies.
-- KEYS: 5 due
-- ARGV: 4 due by (ms), 5 page, 6 forward to (ms)
-- Returns: the members.
local members = redis.call('ZRANGE', KEYS[5], '-inf', ARGV[4], 'BYSCORE', 'LIMIT', 0, ARGV[5])
for at = 1, #members do redis.call('ZADD', KEYS[5], ARGV[6], members[at]) end
return members

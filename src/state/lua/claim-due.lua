-- Takes a page of what is due and moves it forward, so that nobody else takes it meanwhile and it comes back when its taker dies.
-- KEYS: 5 due
-- ARGV: 4 due by (ms), 5 page (a thousand at most: an unpack takes some thousands), 6 forward to (ms)
-- Returns: when the next is due (ms, '' when nothing is), then the members.
local members = redis.call('ZRANGE', KEYS[5], '-inf', ARGV[4], 'BYSCORE', 'LIMIT', 0, ARGV[5])
if #members > 0 then
  local forward = {}
  for at = 1, #members do forward[2 * at - 1], forward[2 * at] = ARGV[6], members[at] end
  redis.call('ZADD', KEYS[5], unpack(forward))
end
local first = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')
table.insert(members, 1, first[2] or '')
return members

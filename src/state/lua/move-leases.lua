-- Moves live leases: tokens to revoked, credentials to revoking and due. Those not live are skipped. A token with leases below it makes its task
-- due for its drain: the credentials got with it are dead too, and somebody has to say so to their backends.
-- KEYS: 5 due, 6 the task of a verdict (or none), then four per lease:
--       a token: its second, tokens of its task, its tree, its agent (or none); a credential: itself, credentials of its backend, none, none
-- ARGV: 4 reason, 5 generation and 6 bundle of a verdict ('' for none), 7 number of leases, 8 '1': tell the verifiers of every token, 9 since when credentials ought to be
--       dead (ms, '' for now), then six per lease: 't' or 'c', id, field (of a credential its member of due), end (ms), slot of the end, task ('' for none)
-- Returns: {'moved', position or '', id…} or {'stale'}.
local reason, isVerdict = ARGV[4], not isNone(KEYS[6])
if isVerdict and (redis.call('HGET', KEYS[6], 'generation') ~= ARGV[5] or bundle ~= ARGV[6]) then return { 'stale' } end
-- A verdict's token has no other entry that kills it at a verifier.
local isAnnounced = isVerdict or ARGV[8] == '1'
local since = ARGV[9] ~= '' and ARGV[9] or ARGV[1]
local reply = { 'moved', '' }
for index = 1, tonumber(ARGV[7]) do
  local firstKey, firstArg = 6 + 4 * (index - 1), 9 + 6 * (index - 1)
  local key, kind, id, field = KEYS[firstKey + 1], ARGV[firstArg + 1], ARGV[firstArg + 2], ARGV[firstArg + 3]
  if kind == 't' then
    local value = redis.call('HGET', key, field)
    local expires = value and string.match(value, '^a.(%d+)')
    if expires and tonumber(expires) > now then
      local hasBelow = string.sub(value, 2, 2) == 'p'
      if hasBelow and ARGV[firstArg + 6] ~= '' then
        -- Earlier than it was: who is at work on that drain sees that it is due anew, and leaves it so.
        local member = 'drain-task:' .. ARGV[firstArg + 6]
        local before = tonumber(redis.call('ZSCORE', KEYS[5], member) or now + 1)
        redis.call('ZADD', KEYS[5], string.format('%.0f', math.min(before - 1, now)), member)
      end
      if hasBelow or isAnnounced then reply[2] = append('{"lease":"' .. id .. '"}', expires + 60000) end
      redis.call('HSET', key, field, 'r' .. string.sub(value, 2) .. '|' .. ARGV[1] .. '|' .. reason)
      local tokensKey, treeKey, agentKey = KEYS[firstKey + 2], KEYS[firstKey + 3], KEYS[firstKey + 4]
      if not isNone(tokensKey) then redis.call('ZREM', tokensKey, id) end
      if not isNone(treeKey) then redis.call('ZREM', treeKey, id) end
      if tonumber(redis.call('HGET', agentKey, ARGV[firstArg + 5]) or 0) > 0 then
        redis.call('HINCRBY', agentKey, ARGV[firstArg + 5], -1)
        redis.call('HINCRBY', agentKey, 'n', -1)
      end
      reply[#reply + 1] = id
    end
  else
    local state = redis.call('HGET', key, 'state')
    if state == 'active' or state == 'pending' then
      redis.call('HSET', key, 'state', 'revoking', 'reason', reason, 'revoking', since)
      redis.call('ZADD', KEYS[5], afterMessenger(), field)
      redis.call('ZADD', KEYS[firstKey + 2], 3, id)
      reply[#reply + 1] = id
    end
  end
end
if #reply > 2 then record(ARGV[3]) end
return reply

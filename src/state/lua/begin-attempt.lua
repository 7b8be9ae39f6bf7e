-- Begins an attempt at revoking a credential, for one worker: nobody else begins one before it is closed or its time is over. One that is past
-- its end, and an intent past its deadline, is moved to revoking first; what is not due yet is due at its own time again.
-- KEYS: 5 the credential, 6 due, 7 credentials of its backend
-- ARGV: 4 id, 5 member of due, 6 until when the attempt is this worker's (ms)
-- Returns: {'begun', field, value…} or {'not_due' | 'closed' | 'not_found'}.
local id, member = ARGV[4], ARGV[5]
local fields = redis.call('HMGET', KEYS[5], 'state', 'attempts', 'expires', 'deadline', 'claim', 'residue')
local state = fields[1]
if not state then
  redis.call('ZREM', KEYS[6], member)
  return { 'not_found' }
end
local isLive = state == 'active' or state == 'pending'
if not isLive and state ~= 'revoking' and not (state == 'revoked' and fields[6]) then
  redis.call('ZREM', KEYS[6], member)
  return { 'closed' }
end
local from = isLive and tonumber(state == 'active' and fields[3] or fields[4]) or tonumber(fields[5] or 0)
if from > now then
  redis.call('ZADD', KEYS[6], from, member)
  return { 'not_due' }
end

if isLive then
  local reason = state == 'active' and 'it expired' or 'it was not committed in time'
  redis.call('HSET', KEYS[5], 'state', 'revoking', 'reason', reason, 'revoking', string.format('%.0f', from))
  redis.call('ZADD', KEYS[7], 3, id)
  record(ARGV[3])
end
redis.call('HSET', KEYS[5], 'attempts', (fields[2] or 0) + 1, 'claim', ARGV[6])
redis.call('ZADD', KEYS[6], ARGV[6], member)
local reply = redis.call('HGETALL', KEYS[5])
table.insert(reply, 1, 'begun')
return reply

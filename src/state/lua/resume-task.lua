-- A suspended task goes on at a new generation; nothing given before comes back, its cut stays.
-- KEYS, ARGV 4: as tasks.lua
-- Returns: {'resumed' | 'already' | 'over', task} or {'not_found'}. Errors: CLOSED.
if not state then return { 'not_found' } end
if isOver then return { 'over', look() } end
if state == 'active' then return { 'already', look() } end
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end

redis.call('HSET', taskKey, 'state', 'active', 'generation', generation + 1, 'heartbeat', ARGV[1])
read[5] = ARGV[1]
watch('active')
record(ARGV[3])
return { 'resumed', look() }

-- The paths of some tasks, which never change.
-- KEYS: the tasks, from 5 on
-- Returns: for each its path, or false when it is not there.
local paths = {}
for at = 5, #KEYS do paths[at - 4] = redis.call('HGET', KEYS[at], 'path') end
return paths

-- Put after the prelude of every script but raise-epoch.
-- Errors: LATE the deadline passed; BLANK the cell is not there; CHANGED the master is another process than the cell knows.
if isLate() then return redis.error_reply('LATE the deadline has passed') end
if not epoch then return redis.error_reply('BLANK the cell is empty') end
local run = string.sub(ARGV[2], 15)
if run == '' then run = ownRun() end
if run ~= known[5] then return redis.error_reply('CHANGED the server is another process') end

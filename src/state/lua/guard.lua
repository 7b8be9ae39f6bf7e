-- Put after the prelude of every script but raise-epoch.
-- Errors: LATE the deadline passed; BLANK the cell is not there; CHANGED the master is another process than the cell knows.
if clockMs() > tonumber(ARGV[2]) then return redis.error_reply('LATE the deadline has passed') end
if not epoch then return redis.error_reply('BLANK the cell is empty') end
if ownRun() ~= known[5] then return redis.error_reply('CHANGED the server is another process') end

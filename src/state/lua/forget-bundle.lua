-- Forgets the files of an old bundle, but never of the active one. That it was active once stays known.
-- KEYS: 5 the bundle
-- ARGV: 4 digest
-- Returns: {'forgotten' | 'active'}.
if bundle == ARGV[4] then return { 'active' } end
redis.call('UNLINK', KEYS[5])
return { 'forgotten' }

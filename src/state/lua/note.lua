-- A record without a change.
record(ARGV[3])
return { 'noted' }

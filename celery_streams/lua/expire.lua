-- Have the keys of a queue expire that are there.
-- KEYS: all of the queue. ARGV: milliseconds

for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return #KEYS

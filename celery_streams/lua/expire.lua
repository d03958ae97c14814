-- Renew the expiry of a queue's existing keys.
-- KEYS: all keys of the queue. ARGV: milliseconds

for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
return #KEYS

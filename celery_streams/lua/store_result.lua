-- Store a job's state and announce it, unless it must not replace what is there.
-- KEYS: the job's. ARGV: the payload; its seconds, 0 for ever; the sender's channel, or
-- nothing; names of states between spaces; `kept` if these are not replaced, `only` if no
-- other is; the digest of what may be replaced whatever it is, or nothing. Returns as above.

local is_stored = store(KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[5] == 'kept', ARGV[6])
if is_stored == 1 and ARGV[3] ~= '' then
  redis.pcall('PUBLISH', ARGV[3], #ARGV[1] <= 65536 and ARGV[1] or KEYS[1])
end
return is_stored

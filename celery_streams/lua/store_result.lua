-- Store a job's state and announce it, unless it must not replace the stored one.
-- KEYS: the job's key. ARGV: payload; expiry in seconds (0: never); the sender's channel or "";
-- states between spaces; `kept` if these are not replaced, `only` if no others are; the digest of
-- a payload that may be replaced in any case, or "". Returns what `store` does.

local is_stored = store(KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[5] == 'kept', ARGV[6])
if is_stored == 1 and ARGV[3] ~= '' then
  redis.pcall('PUBLISH', ARGV[3], #ARGV[1] <= 65536 and ARGV[1] or KEYS[1])
end
return is_stored

-- Store a job's state unless it must not replace the stored one. Returns 1 if it is stored, 0 if
-- not, or the stored payload if that is not JSON, so that its state cannot be read here.

local function store(key, payload, seconds, states, are_kept, digest)
  -- A key of another type holds no result; SET takes its place.
  local head = redis.pcall('GETRANGE', key, 0, 63)
  if type(head) == 'string' and head ~= '' then
    local state = string.match(head, '^{"status": ?"([^"\\]*)"')
    if state then
      local is_named = string.find(states, ' ' .. state .. ' ', 1, true) ~= nil
      if is_named == are_kept then return 0 end
    else
      local stored = redis.call('GET', key)
      if digest and redis.sha1hex(stored) ~= digest then return stored end
    end
  end
  if seconds == '0' then
    redis.call('SET', key, payload)
  else
    redis.call('SET', key, payload, 'EX', seconds)
  end
  -- No right to announce it is no reason to lose it: whoever waits reads the key, too.
  redis.pcall('PUBLISH', key, payload)
  return 1
end

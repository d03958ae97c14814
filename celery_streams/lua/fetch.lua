-- Store the results of messages, ack them, then fetch new messages from the first streams that have
-- any. Several results for one sender's channel are announced together, as a JSON list.
-- KEYS: streams to fetch from, the most urgent first; streams to ack in; results.
-- ARGV: group, consumer, number of messages to fetch, number of streams to fetch from, number of
-- streams to ack in; for each of the latter, the number of ids and the ids; for each result, its
-- payload, its expiry in seconds (0: never), and the sender's channel or "".
-- Returns the reply of XREADGROUP.

local group, consumer, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local streams, results = tonumber(ARGV[4]), ARGV[4] + ARGV[5]
local at = 6

local told = {}
local function tell(channel, notice)
  told[channel] = told[channel] or {size = 0}
  local notices = told[channel]
  if #notices > 0 and notices.size + #notice > 65536 then
    redis.pcall('PUBLISH', channel, '[' .. table.concat(notices, ',') .. ']')
    notices = {size = 0}
    told[channel] = notices
  end
  notices[#notices + 1] = notice
  notices.size = notices.size + #notice
end

local ids = {}
for k = streams + 1, results do
  local last = at + tonumber(ARGV[at])
  ids[KEYS[k]] = {unpack(ARGV, at + 1, last)}
  at = last + 1
end
for k = results + 1, #KEYS do
  local payload, seconds, channel = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  if store(KEYS[k], payload, seconds, ' SUCCESS ', true) == 1 and channel ~= '' then
    if #payload > 65536 then
      redis.pcall('PUBLISH', channel, KEYS[k])
    else
      tell(channel, payload)
    end
  end
end
for channel, notices in pairs(told) do
  local text = table.concat(notices, ',')
  redis.pcall('PUBLISH', channel, #notices == 1 and text or '[' .. text .. ']')
end
for stream, its in pairs(ids) do
  redis.call('XACK', stream, group, unpack(its))
  redis.call('XDEL', stream, unpack(its))
end

local fetched = {}
for k = 1, streams do
  if left <= 0 then break end
  -- Most are empty, and this asks for a third of the time.
  local reply = redis.call('XLEN', KEYS[k]) > 0 and redis.call(
    'XREADGROUP', 'GROUP', group, consumer, 'COUNT', left, 'STREAMS', KEYS[k], '>')
  if reply then
    fetched[#fetched + 1] = reply[1]
    left = left - #reply[1][2]
  end
end
return fetched

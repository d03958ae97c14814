-- Reclaim messages whose lease has expired, and remove idle consumers; move the messages that an
-- earlier version released into the stream of their priority step.
-- One consumer does this for all of its queue, once a second, and removes idle consumers once a
-- minute: to list them costs the server more than all else that an idle worker does.
-- KEYS: the notes that it was done, and that idle consumers were removed; the earlier version's
-- stream, then for each step its stream of returned messages and its stream.
-- ARGV: group, consumer, lease in milliseconds (0: reclaim nothing), maximum number of deliveries,
-- milliseconds after which an idle consumer is removed, maximum number of messages to move from
-- each stream, then the steps.
-- Returns `stream, id, message` of each message that was delivered too often, which stays in its
-- stream, held by the consumer.

local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limit, idle, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local too_often = {}
if not redis.call('SET', KEYS[1], '', 'NX', 'PX', 900) then return too_often end

-- The stream of returned messages of the priority that a message names.
local function returned_of(message)
  local found = KEYS[4]
  local _, parsed = pcall(cjson.decode, message)
  local properties = type(parsed) == 'table' and parsed['properties']
  local priority = type(properties) == 'table' and tonumber(properties['priority'])
  for i = 7, #ARGV do
    if priority and priority >= tonumber(ARGV[i]) then found = KEYS[2 * (i - 7) + 4] end
  end
  return found
end

-- Of the earlier version: what is not pending is moved; what is, as its lease is over.
local first = 4
if redis.call('EXISTS', KEYS[3]) == 1 then
  local last = '-'
  for _, each in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3])) do
    local about = {}
    for i = 1, #each, 2 do about[each[i]] = each[i + 1] end
    if about['name'] == group then first, last = 3, '(' .. about['last-delivered-id'] end
  end
  for _, entry in ipairs(redis.call('XRANGE', KEYS[3], last, '+', 'COUNT', most)) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    redis.call('XADD', returned_of(fields['message'] or ''), '*', unpack(entry[2]))
    redis.call('XDEL', KEYS[3], entry[1])
  end
  if redis.call('XLEN', KEYS[3]) == 0 then
    redis.call('UNLINK', KEYS[3])
    first = 4
  end
end

if lease == 0 then return too_often end
local sweeps = redis.call('SET', KEYS[2], '', 'NX', 'PX', 60000)
for k = first, #KEYS do
  local stream = KEYS[k]
  for _, each in ipairs(redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', most)) do
    local message, deliveries, published = take(stream, group, each[1])
    if message and deliveries + 1 >= limit then
      -- Its time begins anew: no other consumer is told of it meanwhile.
      redis.call('XCLAIM', stream, group, consumer, 0, each[1], 'JUSTID')
      too_often[#too_often + 1] = {stream, each[1], message}
    elseif message then
      local returned = k == 3 and returned_of(message) or KEYS[k - k % 2]
      give_back(stream, group, each[1], returned, message, deliveries + 1, published)
    else
      drop(stream, group, each[1])
    end
  end
  for _, each in ipairs(sweeps and redis.call('XINFO', 'CONSUMERS', stream, group) or {}) do
    local about = {}
    for i = 1, #each, 2 do about[each[i]] = each[i + 1] end
    if about['pending'] == 0 and about['idle'] > idle then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, about['name'])
    end
  end
end
return too_often

-- The Lua code of the edge, which HAProxy loads; the generated configuration uses it.
--
-- hold          waits until the gateway is up, so that requests survive its restart
-- json_claims   refuses requests whose JSON claims tensors larger than their data

local DEPTH_MOST <const> = 64
local DIGITS_MOST <const> = 19
local POLL_MS <const> = 20

-- hold -------------------------------------------------------------------------------------------------------------

core.register_action("hold", { "http-req" }, function(txn, backend, seconds)
  local waited_ms, most_ms = 0, 1000 * tonumber(seconds)
  while txn.f:nbsrv(backend) == 0 do
    if waited_ms >= most_ms then
      txn:set_var("txn.given_up", true)
      return
    end
    core.msleep(POLL_MS)
    waited_ms = waited_ms + POLL_MS
  end
end, 2)

-- json_claims --------------------------------------------------------------------------------------------------------

-- Triton allocates the memory that `shape` claims before it reads `data`. The scanner reads a body piece by piece, as
-- it passes. It counts the elements of each `data`, and compares them with the product of `shape`. It refuses input
-- that it and Triton's parser could interpret differently: escapes in keys, duplicate keys, and fractional numbers.

local Scanner = {}
Scanner.__index = Scanner

function Scanner.new(limit)
  return setmetatable({ left = limit, depth = 0, kinds = {}, keys = {}, text = "", expects_key = false }, Scanner)
end

-- Returns "shape" or "data" if the scanner is inside an input's array of that name, else nil.
function Scanner:place()
  if self.depth >= 4 and self.keys[1] == "inputs" and self.kinds[2] == "[" and self.kinds[3] == "{" then
    local key = self.keys[3]
    if key == "data" or (key == "shape" and self.depth == 4) then return key end
  end
  return nil
end

function Scanner:open(kind)
  self.depth = self.depth + 1
  if self.depth > DEPTH_MOST then return "it is nested too deeply" end
  self.kinds[self.depth], self.keys[self.depth] = kind, nil
  self.expects_key = kind == "{"
  if self.depth == 3 then
    self.seen, self.claimed, self.commas, self.leaf, self.number = {}, nil, 0, false, ""
  end
  if self.depth == 4 and self.keys[1] == "inputs" and self.keys[3] == "shape" and kind == "[" then self.claimed = 1 end
  return nil
end

function Scanner:close()
  local why
  if self:place() == "shape" then why = self:dimension() end
  if self.depth == 3 and self.keys[1] == "inputs" and self.kinds[2] == "[" and self.seen.data and self.claimed then
    local there = self.leaf and self.commas + 1 or 0
    if self.claimed > there then
      why = string.format("a shape claims %.0f elements and its data has %d", self.claimed, there)
    end
  end
  self.depth = self.depth - 1
  if self.depth < 0 then return "its brackets do not match" end
  self.expects_key = false
  return why
end

-- Multiplies the product of the shape by the dimension that has been read.
function Scanner:dimension()
  local number = self.number:match("^%s*(%d+)%s*$")
  local empty = self.number:match("^%s*$")
  self.number = ""
  if number and #number <= DIGITS_MOST then
    self.claimed = self.claimed * tonumber(number .. ".0")
  elseif not empty then
    return "a dimension of a shape is not a whole number"
  end
  return nil
end

function Scanner:key(text)
  self.keys[self.depth], self.expects_key = text, false
  local first = self.depth == 1 and text == "inputs"
  if first then
    if self.inputs then return "it has inputs twice" end
    self.inputs = true
  elseif self.depth == 3 and self.keys[1] == "inputs" and (text == "shape" or text == "data") then
    if self.seen[text] then return "an input has " .. text .. " twice" end
    self.seen[text] = true
  end
  return nil
end

-- Reads a piece; returns the reason if the request must be refused, else nil.
function Scanner:feed(piece)
  if self.left then
    piece = piece:sub(1, self.left)
    self.left = self.left - #piece
  end
  local at, last = 1, #piece
  while at <= last do
    local why
    if self.escaped then
      self.escaped, at = false, at + 1
    elseif self.string then
      local stop = piece:find('["\\]', at)
      if self.string == "key" then
        self.text = self.text .. piece:sub(at, (stop or last + 1) - 1)
        if #self.text > 4096 then return "a key is too long" end
      end
      if not stop then return nil end
      at = stop + 1
      if piece:byte(stop) == 92 then
        if self.string == "key" and self.depth <= 3 then return "a key has an escape" end
        self.escaped = true
      else
        if self.string == "key" then why = self:key(self.text) end
        self.string, self.text = nil, ""
      end
    else
      local place = self:place()
      local stop = piece:find(place == "data" and '[%[%]{}"]' or '[%[%]{}",]', at)
      local till = (stop or last + 1) - 1
      if place == "data" then
        local passed = piece:sub(at, till)
        local _, commas = passed:gsub(",", "")
        self.commas = self.commas + commas
        self.leaf = self.leaf or passed:find("%w") ~= nil
      elseif place == "shape" then
        self.number = self.number .. piece:sub(at, till)
        if #self.number > 64 then return "a dimension of a shape is not a whole number" end
      end
      if not stop then return nil end
      at = stop + 1
      local mark = piece:sub(stop, stop)
      if mark == '"' then
        if place == "shape" then return "a dimension of a shape is not a whole number" end
        self.leaf = self.leaf or place == "data"
        self.string = self.kinds[self.depth] == "{" and self.expects_key and "key" or "value"
      elseif mark == "," then
        if place == "shape" then why = self:dimension() end
        self.expects_key = self.kinds[self.depth] == "{"
      elseif mark == "[" or mark == "{" then
        why = self:open(mark)
      else
        why = self:close()
      end
    end
    if why then return why end
  end
  return nil
end

local Claims = { id = "refuses JSON that claims more than it carries", flags = filter.FLT_CFG_FL_HTX }
Claims.__index = Claims

function Claims:new()
  return setmetatable({}, Claims)
end

function Claims:start_analyze(txn, channel)
  if not channel:is_resp() then filter.register_data_filter(self, channel) end
end

function Claims:http_headers(txn, message)
  if message.channel:is_resp() then return filter.CONTINUE end
  local headers = message:get_headers()
  local length = headers["inference-header-content-length"]
  local limit
  if length then
    limit = tonumber(length[0]:match("^%d+$"))
    if length[1] or not limit then return self:refuse(txn, "Inference-Header-Content-Length is not one number") end
  end
  if message:get_stline().method == "GET" then
    filter.unregister_data_filter(self, message.channel)
  else
    self.scanner = Scanner.new(limit)
  end
  return filter.CONTINUE
end

function Claims:http_payload(txn, message)
  if message.channel:is_resp() or not self.scanner then return end
  local piece = message:body()
  if not piece or #piece == 0 then return end
  local why = self.scanner:feed(piece)
  if why then
    txn:set_var("txn.refused", why)
    error(why, 0)
  end
end

function Claims:refuse(txn, why)
  txn:set_var("txn.refused", why)
  return filter.ERROR
end

core.register_filter("json_claims", Claims, function(claims, _) return claims end)

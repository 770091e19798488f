-- Refuses a call after it has read all of it. A connection that is closed with a part of the call unread would be reset,
-- and the other end could then lose the status, which says that the call was not executed.

local CHUNK_BYTES = 65536

core.register_service("refuse", "http", function(applet)
  repeat
    local chunk = applet:receive(CHUNK_BYTES)
  until not chunk or #chunk == 0
  local body = '{"error": "' .. applet:get_var("req.reason") .. '"}'
  applet:set_status(503)
  applet:add_header("content-type", "application/json")
  applet:add_header("content-length", tostring(#body))
  applet:start_response()
  applet:send(body)
end)

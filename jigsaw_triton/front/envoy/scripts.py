"""Lua code by which Envoy reads requests, as HAProxy does by its own rules. Pure functions without side effects."""

from jigsaw_triton.front.rules import NAMED, SERVICE

GRAPH = "jigsaw-graph"
"""Header in which Envoy itself notes the model that a gRPC message names."""

_HTTP_LUA = """\
local LARGEST = {largest}

-- The listener makes JSON of the message, as of those of Envoy itself.
local function refuse(handle, status, message)
  handle:respond({{[":status"] = status}}, message)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local length, kind = headers:get("content-length"), headers:get("content-type")
  local encoding = headers:get("content-encoding")
  if headers:get(":method") == "POST" and not length then
    refuse(handle, "411", "the request needs a Content-Length")
  elseif (tonumber(length) or 0) > LARGEST then
    refuse(handle, "413", "the body of a request may have at most {mib} MiB")
  elseif encoding and encoding:lower() ~= "identity" then
    refuse(handle, "415", "compressed requests are not accepted")
  elseif kind and kind:lower():find("form-urlencoded", 1, true) then
    -- Triton 24.10 reads a body with the content type of form data into the stack of its thread.
    headers:replace("content-type", "application/json")
  end
end
"""

_GRPC_LUA = """\
-- Reads the name of a model, which is the first field of a message, so that the route depends on it.
local NAMED = {{{named}}}

function envoy_on_request(handle)
  handle:headers():remove("{header}")
  if not NAMED[handle:headers():get(":path")] then
    return
  end
  local body = handle:body()
  if body == nil or body:length() < 7 then
    return
  end
  -- A byte that says if the message is compressed, four with its length, the tag of the field, the name's length.
  local head = body:getBytes(0, math.min(body:length(), 134))
  if head:byte(1) ~= 0 then
    handle:respond({{
      [":status"] = "200", ["content-type"] = "application/grpc",
      ["grpc-status"] = "12", ["grpc-message"] = "compressed messages are not accepted",
    }}, "")
  elseif head:byte(6) == 10 and head:byte(7) < 128 then
    local name = head:sub(8, 7 + head:byte(7))
    if name:find("^[%w_-]+$") then
      handle:headers():replace("{header}", name)
    end
  end
end
"""


def http_script(body_mib: int) -> str:
    """Returns the script that refuses requests which a gateway should not see.

    Args:
        body_mib: Largest body of a request, in MiB.
    """
    return _HTTP_LUA.format(largest=body_mib * 2**20, mib=body_mib)


def grpc_script() -> str:
    """Returns the script that notes the model of a request in the header `GRAPH`."""
    return _GRPC_LUA.format(named=", ".join(f'["{SERVICE}/{call}"] = true' for call in NAMED), header=GRAPH)

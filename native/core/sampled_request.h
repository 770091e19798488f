// Requests that are sampled: they have the context of a trace, and their responses are recorded.
#pragma once

#include "core/front.h"
#include "core/host.h"

namespace jigsaw {

// Returns the request itself if it is not sampled, as most are. Otherwise returns a request in front of it that the
// core uses in its place, and that deletes itself on `release`. Any thread may call this, without the engine's lock.
Request* sampled(Front& front, Request* request, const RequestOptions& options);

}  // namespace jigsaw

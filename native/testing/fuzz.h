// What fuzzers call: each function takes any bytes, and must neither crash nor let an exception out.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jigsaw {

// Reads an answer of a server, whole and in pieces, and compares what comes of it. The first byte seeds the pieces.
void fuzz_answer(const uint8_t* data, size_t size);

// Reads a front's specification, a route, and any JSON.
void fuzz_documents(const uint8_t* data, size_t size);

// Answers a call of a task over a socket, up to the tensors of the request. The first byte chooses the task.
void fuzz_call(const uint8_t* data, size_t size);

}  // namespace jigsaw

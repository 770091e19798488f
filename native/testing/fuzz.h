// Fuzz targets. Each function accepts any bytes, and must neither crash nor throw.
#pragma once

#include <cstddef>
#include <cstdint>

namespace jigsaw {

// Reads a server's answer, once as a whole and once in pieces, and compares the results. The first byte is the random
// seed of the sizes of the pieces.
void fuzz_answer(const uint8_t* data, size_t size);

// Reads requests to a worker, once as a whole and once in pieces, and compares the results. The first byte is the
// random seed of the sizes of the pieces.
void fuzz_request(const uint8_t* data, size_t size);

// Parses the bytes as a front's specification, as a route, as a registration, and as JSON.
void fuzz_documents(const uint8_t* data, size_t size);

// Answers a call over a socket with the bytes, and processes the answer up to the tensors of the request. The first
// byte chooses the task.
void fuzz_call(const uint8_t* data, size_t size);

}  // namespace jigsaw

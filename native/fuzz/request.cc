// libFuzzer target for requests to workers; see README.md.
#include "testing/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  jigsaw::fuzz_request(data, size);
  return 0;
}

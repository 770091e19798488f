// libFuzzer target for specifications, routes and JSON; see README.md.
#include "testing/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  jigsaw::fuzz_documents(data, size);
  return 0;
}

// libFuzzer target for answers to calls; see README.md.
#include "testing/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  jigsaw::fuzz_call(data, size);
  return 0;
}

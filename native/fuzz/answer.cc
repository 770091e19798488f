// libFuzzer target for answers of servers; see README.md.
#include "testing/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  jigsaw::fuzz_answer(data, size);
  return 0;
}

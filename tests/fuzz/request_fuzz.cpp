// Messages of callers, from their bytes to requests that could be submitted. The first byte says which message.
#include <cstdint>

#include "pyramidkv/v1/generation.pb.h"
#include "server/api/accept.h"
#include "server/api/estimate_cache.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/served_model.h"

namespace {

namespace pb = ::pyramidkv::v1;

// What is malformed is an empty message: a caller's is refused, but the parser has seen it.
template <typename Message>
Message read(const uint8_t* data, size_t size) {
  Message message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) message.Clear();
  return message;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  pkv::ServerState& state = pkv::test::served_state();
  pkv::CallInfo info;
  const uint8_t kind = *data++ % 3;
  --size;
  if (kind == 0) {
    (void)pkv::accept_request(read<pb::GenerateRequest>(data, size), state, {}, info);
  } else if (kind == 1) {
    (void)pkv::accept_comparison(read<pb::CompareRequest>(data, size), state, {}, info);
  } else {
    pb::EstimateCacheResponse response;
    (void)pkv::estimate_cache(read<pb::EstimateCacheRequest>(data, size), *state.model(), *state.policies(), response);
  }
  return 0;
}

// Bytes of requests before they are parsed: what the scan lets through and protobuf takes has nothing in it that would
// be passed over. The first byte says which message.
#include <array>
#include <cstdint>
#include <memory>

#include "kernels/check.h"
#include "pyramidkv/v1/generation.pb.h"
#include "server/rpc/request_scan.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

namespace pb = ::pyramidkv::v1;
using google::protobuf::Message;

const std::array<const Message*, 5> kMessages = {
    &pb::GenerateRequest::default_instance(), &pb::CompareRequest::default_instance(),
    &pb::EstimateCacheRequest::default_instance(), &pb::TokenizeRequest::default_instance(),
    &pb::DetokenizeRequest::default_instance()};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::unique_ptr<Message> message(kMessages.at(*data % kMessages.size())->New());
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  if (!pkv::scan_request(bytes, *message->GetDescriptor()).ok()) return 0;
  if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return 0;
  const size_t parsed = message->ByteSizeLong();
  message->DiscardUnknownFields();
  PKV_CHECK(message->ByteSizeLong() == parsed, "a field was let through that protobuf passes over");
  return 0;
}

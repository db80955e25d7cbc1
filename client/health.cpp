// grpc.health.v1.Health/Check. Its proto file is not installed by distributions, so the few bytes of its messages are
// read and written here.
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace pkv::client {
namespace {

constexpr char kMethod[] = "/grpc.health.v1.Health/Check";
constexpr int kServiceField = 1;  // HealthCheckRequest.service
constexpr int kStatusField = 1;   // HealthCheckResponse.status

grpc::ByteBuffer question(const std::string& service) {
  google::protobuf::UnknownFieldSet fields;
  fields.AddLengthDelimited(kServiceField, service);
  std::string bytes;
  fields.SerializeToString(&bytes);
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// What a later version of the service may add is unknown too.
Health read_answer(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  google::protobuf::UnknownFieldSet fields;
  if (!buffer.DumpToSingleSlice(&slice).ok() || !fields.ParseFromArray(slice.begin(), static_cast<int>(slice.size())))
    return Health::kUnknown;
  Health health = Health::kUnknown;
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields.field(i);
    if (field.number() != kStatusField || field.type() != google::protobuf::UnknownField::TYPE_VARINT) continue;
    const bool known = field.varint() <= static_cast<uint64_t>(Health::kServiceUnknown);
    health = known ? static_cast<Health>(field.varint()) : Health::kUnknown;
  }
  return health;
}

}  // namespace

Result<Health> Client::check_health(const std::string& service, std::chrono::nanoseconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  grpc::GenericStub stub(channel_);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, kMethod, question(service), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (status.ok()) return {.value = read_answer(answer)};
  // How the service says that it does not know the name.
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return {.value = Health::kServiceUnknown};
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) return {.error = unreachable()};
  Error error = error_of(status);
  if (error.code == grpc::StatusCode::DEADLINE_EXCEEDED) {
    error.message =
        absl::StrCat("no answer from ", target_, " within ", absl::FormatDuration(absl::FromChrono(timeout)));
    error.reachable = false;
  }
  return {.error = std::move(error)};
}

}  // namespace pkv::client

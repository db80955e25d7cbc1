#include "tests/integration/raw_call.h"

#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <string_view>

namespace pkv {
namespace {

// A message with one text field.
std::string text_field(int number, const std::string& text) {
  google::protobuf::UnknownFieldSet fields;
  fields.AddLengthDelimited(number, text);
  std::string bytes;
  fields.SerializeToString(&bytes);
  return bytes;
}

// The first reply of a call, read as fields by number.
grpc::Status call(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& message,
                  google::protobuf::UnknownFieldSet& reply) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto stream = stub.PrepareCall(&context, method, &queue);
  stream->StartCall(nullptr);
  next();
  const grpc::Slice slice(message);
  stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  next();
  grpc::ByteBuffer buffer;
  stream->Read(&buffer, nullptr);
  if (next()) {
    grpc::Slice bytes;
    if (buffer.DumpToSingleSlice(&bytes).ok()) reply.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()));
  }
  grpc::Status status;
  stream->Finish(&status, nullptr);
  next();
  queue.Shutdown();
  while (next()) {
  }
  return status;
}

}  // namespace

int check_health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  google::protobuf::UnknownFieldSet reply;
  const grpc::Status status = call(channel, "/grpc.health.v1.Health/Check", text_field(1, service), reply);
  if (!status.ok()) return -static_cast<int>(status.error_code());
  return reply.field_count() == 0 ? 0 : static_cast<int>(reply.field(0).varint());
}

std::vector<std::string> list_services(const std::shared_ptr<grpc::Channel>& channel) {
  google::protobuf::UnknownFieldSet reply;
  // ServerReflectionRequest.list_services = 7; ServerReflectionResponse.list_services_response = 6, of ServiceResponse
  // service = 1, whose name = 1.
  call(channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", text_field(7, "*"), reply);
  std::vector<std::string> names;
  for (int i = 0; i < reply.field_count(); ++i) {
    if (reply.field(i).number() != 6) continue;
    google::protobuf::UnknownFieldSet list;
    list.ParseFromString(reply.field(i).length_delimited());
    for (int k = 0; k < list.field_count(); ++k) {
      google::protobuf::UnknownFieldSet service;
      service.ParseFromString(list.field(k).length_delimited());
      if (service.field_count() > 0) names.push_back(service.field(0).length_delimited());
    }
  }
  return names;
}

}  // namespace pkv

#include "tests/integration/raw_call.h"

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/unknown_field_set.h>
#include <grpcpp/support/byte_buffer.h>

#include <initializer_list>
#include <string_view>
#include <utility>

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

// ---- HTTP/2 by hand (RFC 9113, and RFC 7541 without compression)

constexpr int kData = 0, kHeaders = 1, kSettings = 4;
constexpr int kEndStream = 1, kEndHeaders = 4;

std::string big_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> 8 * i);
  return text;
}

std::string http2_frame(int type, int flags, int stream, const std::string& payload) {
  return big_endian(payload.size(), 3) + big_endian(type, 1) + big_endian(flags, 1) + big_endian(stream, 4) + payload;
}

// Of less than 127 bytes.
std::string with_length(const std::string& text) { return big_endian(text.size(), 1) + text; }

// ---- gRPC without stubs

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

// Method names of the service `name` in a serialised FileDescriptorProto.
std::vector<std::string> methods_in(const std::string& bytes, const std::string& name) {
  google::protobuf::FileDescriptorProto file;
  file.ParseFromString(bytes);
  std::vector<std::string> methods;
  for (const auto& service : file.service()) {
    if (file.package() + "." + service.name() != name) continue;
    for (const auto& method : service.method()) methods.push_back(method.name());
  }
  return methods;
}

// HealthCheckResponse.status = 1
int serving_status(const google::protobuf::UnknownFieldSet& reply) {
  return reply.field_count() == 0 ? 0 : static_cast<int>(reply.field(0).varint());
}

// Otherwise the library reads megabytes ahead.
std::shared_ptr<grpc::Channel> eager_for_nothing(int port) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

int check_health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  google::protobuf::UnknownFieldSet reply;
  const grpc::Status status = call(channel, "/grpc.health.v1.Health/Check", text_field(1, service), reply);
  if (!status.ok()) return -static_cast<int>(status.error_code());
  return serving_status(reply);
}

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) : stub_(channel) {
  stream_ = stub_.PrepareCall(&context_, method, &queue_);
  stream_->StartCall(nullptr);
  wait();
}

RawCall::~RawCall() {
  queue_.Shutdown();
  void* tag = nullptr;
  for (bool ok = false; queue_.Next(&tag, &ok);) {
  }
}

bool RawCall::wait() {
  void* tag = nullptr;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

void RawCall::write_last(const std::string& message) {
  const grpc::Slice slice(message);
  stream_->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  wait();
}

HealthWatch::HealthWatch(const std::shared_ptr<grpc::Channel>& channel, const std::string& service)
    : RawCall(channel, "/grpc.health.v1.Health/Watch") {
  write_last(text_field(1, service));
}

HealthWatch::~HealthWatch() {
  cancel();
  if (!ended_) finish();
}

int HealthWatch::next() {
  if (ended_) return 0;
  grpc::ByteBuffer buffer;
  stream_->Read(&buffer, nullptr);
  if (!wait()) {
    finish();
    return 0;
  }
  grpc::Slice bytes;
  google::protobuf::UnknownFieldSet reply;
  if (buffer.DumpToSingleSlice(&bytes).ok()) reply.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()));
  return serving_status(reply);
}

void HealthWatch::finish() {
  ended_ = true;
  stream_->Finish(&status_, nullptr);
  wait();
}

UnreadCall::UnreadCall(int port, const std::string& method, const std::string& message)
    : RawCall(eager_for_nothing(port), method) {
  write_last(message);
}

UnreadCall::~UnreadCall() {
  context_.TryCancel();
  stream_->Finish(&status_, nullptr);
  wait();
}

ClosedWindowCall::ClosedWindowCall(int port, const std::string& method, const std::string& message)
    : connection_(port) {
  const std::string no_window("\0\4\0\0\0\0", 6);  // SETTINGS_INITIAL_WINDOW_SIZE: 0
  std::string headers;
  for (const auto& [name, value] :
       std::initializer_list<std::pair<std::string, std::string>>{{":method", "POST"},
                                                                  {":scheme", "http"},
                                                                  {":authority", "localhost"},
                                                                  {":path", method},
                                                                  {"content-type", "application/grpc"},
                                                                  {"te", "trailers"}}) {
    headers += std::string(1, '\0') + with_length(name) + with_length(value);
  }
  const std::string data = std::string(1, '\0') + big_endian(message.size(), 4) + message;
  connection_.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(kSettings, 0, 0, no_window) +
                   http2_frame(kHeaders, kEndHeaders, 1, headers) + http2_frame(kData, kEndStream, 1, data));
}

OpenReflection::OpenReflection(const std::shared_ptr<grpc::Channel>& channel)
    : RawCall(channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") {
  stream_->Finish(&status_, this);
}

OpenReflection::~OpenReflection() { context_.TryCancel(); }

grpc::StatusCode OpenReflection::code() {
  void* tag = nullptr;
  bool ok = false;
  if (!ended_)
    ended_ = queue_.AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_REALTIME)) == grpc::CompletionQueue::GOT_EVENT;
  return ended_ ? status_.error_code() : grpc::StatusCode::OK;
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

std::vector<std::string> describe_service(const std::shared_ptr<grpc::Channel>& channel, const std::string& name) {
  google::protobuf::UnknownFieldSet reply;
  // ServerReflectionRequest.file_containing_symbol = 4; ServerReflectionResponse.file_descriptor_response = 4, whose
  // file_descriptor_proto = 1.
  call(channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", text_field(4, name), reply);
  for (int i = 0; i < reply.field_count(); ++i) {
    if (reply.field(i).number() != 4) continue;
    google::protobuf::UnknownFieldSet files;
    files.ParseFromString(reply.field(i).length_delimited());
    for (int k = 0; k < files.field_count(); ++k) {
      std::vector<std::string> methods = methods_in(files.field(k).length_delimited(), name);
      if (!methods.empty()) return methods;
    }
  }
  return {};
}

}  // namespace pkv

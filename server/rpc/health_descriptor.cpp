#include "server/rpc/health_descriptor.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <string>

namespace pkv {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorProto;
using google::protobuf::MethodDescriptorProto;
using google::protobuf::ServiceDescriptorProto;

FieldDescriptorProto& add_field(DescriptorProto& message, const char* name, FieldDescriptorProto::Type type) {
  FieldDescriptorProto& field = *message.add_field();
  field.set_name(name);
  field.set_json_name(name);
  field.set_number(1);
  field.set_label(FieldDescriptorProto::LABEL_OPTIONAL);
  field.set_type(type);
  return field;
}

MethodDescriptorProto& add_method(ServiceDescriptorProto& service, const char* name) {
  MethodDescriptorProto& method = *service.add_method();
  method.set_name(name);
  method.set_input_type(".grpc.health.v1.HealthCheckRequest");
  method.set_output_type(".grpc.health.v1.HealthCheckResponse");
  return method;
}

std::string health_file() {
  FileDescriptorProto file;
  file.set_name("grpc/health/v1/health.proto");
  file.set_package("grpc.health.v1");
  file.set_syntax("proto3");

  DescriptorProto& request = *file.add_message_type();
  request.set_name("HealthCheckRequest");
  add_field(request, "service", FieldDescriptorProto::TYPE_STRING);

  DescriptorProto& response = *file.add_message_type();
  response.set_name("HealthCheckResponse");
  EnumDescriptorProto& status = *response.add_enum_type();
  status.set_name("ServingStatus");
  for (const char* name : {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}) {
    const int number = status.value_size();
    status.add_value()->set_name(name);
    status.mutable_value(number)->set_number(number);
  }
  add_field(response, "status", FieldDescriptorProto::TYPE_ENUM)
      .set_type_name(".grpc.health.v1.HealthCheckResponse.ServingStatus");

  ServiceDescriptorProto& service = *file.add_service();
  service.set_name("Health");
  add_method(service, "Check");
  add_method(service, "Watch").set_server_streaming(true);
  return file.SerializeAsString();
}

}  // namespace

void register_health_descriptor() {
  // Reflection looks nowhere but in the pool of generated code, and this is how generated code gets there, once. The
  // pool keeps a pointer to the bytes.
  static const std::string file = health_file();
  [[maybe_unused]] static const bool added = [] {
    DescriptorPool::InternalAddGeneratedFile(file.data(), static_cast<int>(file.size()));
    return true;
  }();
}

}  // namespace pkv

// Calls of the standard health and reflection services, whose proto files distributions do not install: the few bytes
// of their messages are written by hand.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

namespace pkv {

// grpc.health.v1.Health/Check: HealthCheckResponse.status (1 SERVING, 2 NOT_SERVING), or minus the error's code.
int check_health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

// Names by grpc.reflection.v1alpha.ServerReflection; empty where it is not offered.
std::vector<std::string> list_services(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace pkv

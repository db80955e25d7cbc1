#include "server/rpc/guard.h"

#include "server/api/errors.h"
#include "server/rpc/call_info.h"

namespace pkv {

absl::Status guard(const ServerState& state, const grpc::CallbackServerContext& context, std::string_view method,
                   KeyScope scope) {
  CallInfo info = describe_call(context, method);
  absl::Status status = state.authenticator().admit(info.credentials, scope, info.key);
  if (!status.ok()) log_access(state.log(), info, {.status = status, .code = status_code_name(status.code())});
  return status;
}

}  // namespace pkv

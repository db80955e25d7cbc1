#include "server/rpc/model_service.h"

#include <memory>
#include <string>

#include "server/api/policy_parameters.h"
#include "server/policy/registry.h"
#include "server/rpc/answer_now.h"
#include "server/rpc/guard.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

void set_model(const ServedModel& served, pb::Model& out) {
  const ModelShape& shape = served.shape;
  out.set_id(served.id);
  out.set_architecture(shape.architecture);
  out.set_weights(shape.weights);
  out.set_sha256(served.sha256->get());
  out.set_max_model_len(static_cast<uint32_t>(shape.max_positions));
  out.set_layers(static_cast<uint32_t>(shape.layers));
  out.set_query_heads(static_cast<uint32_t>(shape.q_heads));
  out.set_kv_heads(static_cast<uint32_t>(shape.kv_heads));
  out.set_head_dim(static_cast<uint32_t>(shape.head_dim));
  out.set_vocab_size(static_cast<uint32_t>(shape.vocab_size));
  out.set_kv_dtype(to_proto(served.kv_dtype));
  out.set_kv_bytes_per_token(shape.kv_bytes_per_token(served.kv_dtype));
  out.set_device(served.device);
  out.set_has_chat_template(served.chat_template->status().ok());
}

void set_policy(const PolicyRow& row, const PolicyCatalog& catalog, pb::CachePolicyInfo& out) {
  out.set_name(std::string(row.name));
  out.set_summary(std::string(row.summary));
  out.set_source(std::string(row.source));
  const PolicySpec defaults = catalog.defaults_of(row.kind);
  *out.mutable_defaults() = to_proto(defaults);
  // Where it is not switched off, whether the server has what it needs.
  out.set_enabled(catalog.enabled(row.kind) && row.validate(defaults).ok());
  for (const ParameterInfo& parameter : row.parameters) {
    pb::ParameterInfo& info = *out.add_parameters();
    info.set_name(std::string(parameter.name));
    info.set_range(std::string(parameter.range));
    info.set_default_value(std::string(parameter.default_value));
    info.set_description(std::string(parameter.description));
  }
}

pb::ListCachePoliciesResponse list_policies(const PolicyCatalog& catalog) {
  pb::ListCachePoliciesResponse reply;
  for (const PolicyRow& row : policy_table()) set_policy(row, catalog, *reply.add_policies());
  *reply.mutable_default_policy() = to_proto(catalog.default_spec());
  for (const auto& [name, spec] : catalog.presets()) {
    pb::CachePreset& preset = *reply.add_presets();
    preset.set_name(name);
    *preset.mutable_policy() = to_proto(spec);
  }
  return reply;
}

}  // namespace

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return answer_now<pb::ListModelsRequest>(watch_, *context, guard(state_, *context, "ListModels", KeyScope::kAny),
                                           *request, *response, [this](const pb::ListModelsRequest&) {
                                             pb::ListModelsResponse reply;
                                             if (const ServedModel* served = state_.model(); served != nullptr)
                                               set_model(*served, *reply.add_models());
                                             return reply;
                                           });
}

grpc::ServerUnaryReactor* ModelService::ListCachePolicies(grpc::CallbackServerContext* context,
                                                          const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return answer_now<pb::ListCachePoliciesRequest>(
      watch_, *context, guard(state_, *context, "ListCachePolicies", KeyScope::kAny), *request, *response,
      [this](const pb::ListCachePoliciesRequest&) { return list_policies(*state_.policies()); });
}

}  // namespace pkv

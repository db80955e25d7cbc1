#include "server/text/jinja/template.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "kernels/status_macros.h"
#include "server/text/jinja/interpreter.h"
#include "server/text/jinja/parser.h"
#include "server/text/jinja/words.h"

namespace pkv::jinja {
namespace {

constexpr char kRefusedItem[] = "pyramidkv/jinja/refused_item";

}  // namespace

Template::Template(std::unique_ptr<const Program> program, const Limits& limits)
    : program_(std::move(program)), limits_(limits) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::parse(std::string_view source, const Limits& limits) {
  PKV_ASSIGN_OR_RETURN(Program program, jinja::parse(source, limits));
  return Template(std::make_unique<const Program>(std::move(program)), limits);
}

absl::StatusOr<Text> Template::render(const Variables& variables, const std::optional<std::tm>& now,
                                      const std::stop_token& stop) const {
  Run run(limits_, stop);
  run.now = now;
  return Interpreter(*program_, run, limits_.depth).run(variables);
}

bool Template::uses(std::string_view name) const {
  return std::find(program_->names.begin(), program_->names.end(), name) != program_->names.end();
}

bool Template::asks_if_defined(std::string_view name) const {
  const auto found = std::find(program_->names.begin(), program_->names.end(), name);
  return found != program_->names.end() && program_->tested[static_cast<size_t>(found - program_->names.begin())];
}

std::optional<Source> refused_item(const absl::Status& status) {
  const auto payload = status.GetPayload(kRefusedItem);
  Source item = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &item)) return std::nullopt;
  return item;
}

absl::Status with_refused_item(const absl::Status& status, Source item) {
  absl::Status marked = status;
  marked.SetPayload(kRefusedItem, absl::Cord(words(item)));
  return marked;
}

}  // namespace pkv::jinja

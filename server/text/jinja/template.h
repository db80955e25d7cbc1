// Chat templates: the part of Jinja that they use, run as Python's Jinja2 runs it in transformers
// (ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks and loop controls), within bounds. Every byte of the
// text it makes knows where it comes from.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/text/jinja/budget.h"
#include "server/text/jinja/text.h"
#include "server/text/jinja/value.h"

namespace pkv::jinja {

struct Program;

using Variables = std::vector<std::pair<std::string, Value>>;

// Const and thread-safe.
class Template {
 public:
  // INVALID_ARGUMENT "line 3, column 14: ..." for what is not Jinja, for blocks, filters, tests and functions that are
  // not there, and for what goes over the limits. `source` should be valid UTF-8.
  static absl::StatusOr<Template> parse(std::string_view source, const Limits& limits = {});

  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // INVALID_ARGUMENT with the template's own words where it calls raise_exception (see refused_item);
  // FAILED_PRECONDITION for what would be an error in Python; RESOURCE_EXHAUSTED for what goes over the limits;
  // CANCELLED soon after `stop` was requested.
  // `now`: what strftime_now writes; without it the function is not defined.
  absl::StatusOr<Text> render(const Variables& variables, const std::optional<std::tm>& now = std::nullopt,
                              const std::stop_token& stop = {}) const;

  bool uses(std::string_view name) const;             // the name stands somewhere in the template
  bool asks_if_defined(std::string_view name) const;  // `name is defined`, or undefined

 private:
  explicit Template(std::unique_ptr<const Program> program, const Limits& limits);

  std::unique_ptr<const Program> program_;
  Limits limits_;
};

// The source of the dict that the innermost loop was at when the template refused it; none: in no such loop.
std::optional<Source> refused_item(const absl::Status& status);
absl::Status with_refused_item(const absl::Status& status, Source item);

}  // namespace pkv::jinja

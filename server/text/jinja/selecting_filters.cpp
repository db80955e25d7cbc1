// map, select, reject, selectattr, rejectattr: filters that apply other filters and tests to every item.
#include "kernels/status_macros.h"
#include "server/text/jinja/attribute_path.h"
#include "server/text/jinja/operations.h"

namespace pkv::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// The name of a filter or test, and the arguments behind it.
struct Applied {
  const Function* function = nullptr;  // null: none is named
  Arguments arguments;
};

absl::StatusOr<Applied> find_applied(const Arguments& all, size_t at, const Function* (*find)(std::string_view)) {
  Applied applied{.arguments = all};
  if (at >= all.values.size()) return applied;
  const String* name = all.values[at].string();
  if (name == nullptr) return template_error("a filter or test is named by a string, not ", all.values[at].type());
  applied.function = find(name->text.bytes());
  if (applied.function == nullptr) return template_error("no filter or test named '", name->text.bytes(), "'");
  applied.arguments.values.erase(applied.arguments.values.begin(),
                                 applied.arguments.values.begin() + static_cast<int64_t>(at) + 1);
  return applied;
}

Result map(Run& run, const Value& self, const Bound& bound) {
  const Arguments& all = bound.all();
  const Value* attribute = all.values.empty() ? all.find("attribute") : nullptr;
  const Value* otherwise = all.find("default");
  if (otherwise != nullptr && otherwise->is_none()) otherwise = nullptr;
  PKV_ASSIGN_OR_RETURN(const Applied applied, find_applied(all, 0, find_filter));
  if (attribute == nullptr && applied.function == nullptr) return template_error("map requires a filter argument");
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  std::vector<Value> out;
  for (const Value& item : sequence->items) {
    run.budget.spend(1);
    if (run.budget.exhausted()) break;
    PKV_ASSIGN_OR_RETURN(Value value, attribute != nullptr ? follow_path(item, attribute, otherwise, run.budget)
                                                           : applied.function->call(run, item, applied.arguments));
    out.push_back(std::move(value));
  }
  return make_generator(std::move(out), run.budget);
}

template <bool kKeep, bool kByAttribute>
Result select(Run& run, const Value& self, const Bound& bound) {
  const Arguments& all = bound.all();
  if (!self.truthy()) return make_generator({}, run.budget);
  if (kByAttribute && all.values.empty()) return template_error("an attribute's name is needed");
  PKV_ASSIGN_OR_RETURN(const Applied applied, find_applied(all, kByAttribute ? 1 : 0, find_test));
  PKV_ASSIGN_OR_RETURN(const auto sequence, iterate(self, run.budget));
  std::vector<Value> out;
  for (const Value& item : sequence->items) {
    run.budget.spend(1);
    if (run.budget.exhausted()) break;
    Value tested = item;
    if (kByAttribute) {
      PKV_ASSIGN_OR_RETURN(tested, follow_path(item, &all.values[0], nullptr, run.budget));
    }
    if (applied.function != nullptr) {
      PKV_ASSIGN_OR_RETURN(tested, applied.function->call(run, tested, applied.arguments));
    }
    if (tested.truthy() == kKeep) out.push_back(item);
  }
  return make_generator(std::move(out), run.budget);
}

constexpr Function kFilters[] = {
    {"map", map, {}, 0, true},
    {"select", select<true, false>, {}, 0, true},
    {"reject", select<false, false>, {}, 0, true},
    {"selectattr", select<true, true>, {}, 0, true},
    {"rejectattr", select<false, true>, {}, 0, true},
};

}  // namespace

FunctionTable selecting_filters() { return kFilters; }

}  // namespace pkv::jinja

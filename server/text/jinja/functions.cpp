#include "server/text/jinja/functions.h"

#include "kernels/status_macros.h"

namespace pkv::jinja {
namespace {

// What a function may look at or copy, all of it.
void pay_for(const Value& value, Budget& budget) {
  if (const String* string = value.string()) budget.spend_bytes(string->text.size());
  if (const Sequence* sequence = value.sequence()) budget.spend_values(sequence->items.size());
  if (const Dict* dict = value.dict()) budget.spend_values(dict->items.size());
}

}  // namespace

Namespace* Run::new_namespace() {
  auto space = std::make_unique<Namespace>();
  space->charge = Charge(&budget);
  space->charge.take(sizeof(Namespace));
  namespaces.push_back(std::move(space));
  return namespaces.back().get();
}

const Value* Arguments::find(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

absl::StatusOr<Bound> Bound::bind(const Function& function, const Arguments& arguments) {
  Bound bound;
  bound.all_ = &arguments;
  if (function.variadic) return bound;
  size_t count = 0;
  while (count < kMost && !function.parameters[count].empty()) ++count;
  if (arguments.values.size() > count) {
    return template_error(function.name, " takes at most ", count, " arguments, not ", arguments.values.size());
  }
  for (size_t i = 0; i < arguments.values.size(); ++i) bound.values_[i] = &arguments.values[i];
  for (const auto& [name, value] : arguments.named) {
    size_t at = 0;
    while (at < count && function.parameters[at] != name) ++at;
    if (at == count) return template_error(function.name, " has no argument named ", name);
    if (bound.values_[at] != nullptr) return template_error(function.name, " is given ", name, " twice");
    bound.values_[at] = &value;
  }
  for (size_t i = 0; i < function.required; ++i) {
    if (bound.values_[i] == nullptr) return template_error(function.name, " needs ", function.parameters[i]);
  }
  return bound;
}

bool Bound::flag(size_t index, bool otherwise) const {
  return values_[index] == nullptr ? otherwise : values_[index]->truthy();
}

absl::StatusOr<int64_t> Bound::integer(size_t index, int64_t otherwise) const {
  if (values_[index] == nullptr) return otherwise;
  const auto value = values_[index]->as_integer();
  if (!value.has_value()) return template_error("an integer is needed, not ", values_[index]->type());
  return *value;
}

absl::StatusOr<Text> Bound::text(size_t index, std::string_view otherwise) const {
  if (values_[index] == nullptr) return Text(std::string(otherwise));
  const String* string = values_[index]->string();
  if (string == nullptr) return template_error("a string is needed, not ", values_[index]->type());
  return string->text;
}

absl::StatusOr<Value> Function::call(Run& run, const Value& self, const Arguments& arguments) const {
  if (!pays_itself) pay_for(self, run.budget);
  for (const Value& value : arguments.values) pay_for(value, run.budget);
  for (const auto& [key, value] : arguments.named) pay_for(value, run.budget);
  if (run.budget.exhausted()) return run.budget.status();
  PKV_ASSIGN_OR_RETURN(const Bound bound, Bound::bind(*this, arguments));
  return body(run, self, bound);
}

const Function* find_function(FunctionTable table, std::string_view name) {
  for (const Function& function : table) {
    if (function.name == name) return &function;
  }
  return nullptr;
}

const Function* find_filter(std::string_view name) {
  for (const FunctionTable table : {string_filters(), sequence_filters(), selecting_filters(), number_filters()}) {
    if (const Function* found = find_function(table, name)) return found;
  }
  return nullptr;
}

const Function* find_method(const Value& self, std::string_view name) {
  if (self.string() != nullptr) {
    const Function* found = find_function(string_methods(), name);
    return found != nullptr ? found : find_function(string_query_methods(), name);
  }
  if (self.dict() != nullptr) return find_function(dict_methods(), name);
  if (self.loop() != nullptr) return find_function(loop_methods(), name);
  const Sequence* sequence = self.sequence();
  const bool searchable = sequence != nullptr && sequence->form <= Sequence::Form::kRange;
  return searchable ? find_function(sequence_methods(), name) : nullptr;
}

}  // namespace pkv::jinja

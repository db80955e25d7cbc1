#include "client/words.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace pkv::client {
namespace {

// Insertions, deletions, changes and swaps of neighbours that lead from one word to the other.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool is_option(const std::string& word) {
  return word.size() > 1 && word[0] == '-' && !(word[1] >= '0' && word[1] <= '9') && word[1] != '.';
}

std::string option_name(const std::string& word) {
  return absl::StartsWith(word, "--") ? word.substr(0, word.find('=')) : word.substr(0, 2);
}

// Index of the first word from `begin` on that is no option and no option's value; the size where there is none.
size_t next_positional(const std::vector<std::string>& words, size_t begin, const std::vector<std::string>& values) {
  for (size_t i = begin; i < words.size(); ++i) {
    if (!is_option(words[i])) return i;
    if (words[i] != "--" && words[i] == option_name(words[i]) && contains(values, words[i])) ++i;
  }
  return words.size();
}

}  // namespace

std::string closest_word(const std::string& word, const std::vector<std::string>& known) {
  const size_t letters =
      word.find_first_not_of('-') == std::string::npos ? 0 : word.size() - word.find_first_not_of('-');
  if (letters == 0) return "";
  size_t best = std::max<size_t>(1, letters / 3) + 1;
  std::string closest;
  for (const std::string& candidate : known) {
    const bool begun = letters >= 3 && absl::StartsWith(candidate, word);
    const size_t mistakes = begun ? 1 : distance(word, candidate);
    if (mistakes >= best || mistakes >= candidate.size()) continue;
    best = mistakes;
    closest = candidate;
  }
  return closest;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
  const std::string closest = closest_word(word, known);
  return closest.empty() ? "" : absl::StrCat("; did you mean '", closest, "'?");
}

std::string explain_command_line(const std::vector<std::string>& words, const KnownCommand& global,
                                 const std::vector<KnownCommand>& commands) {
  std::vector<std::string> names;
  for (const KnownCommand& command : commands) names.push_back(command.name);
  const size_t at = next_positional(words, 0, global.values);
  if (at == words.size()) {
    for (const std::string& word : words) {
      if (is_option(word) && word != "--" && !contains(global.options, option_name(word)))
        return absl::StrCat("there is no option ", option_name(word), " before the command",
                            did_you_mean(option_name(word), global.options));
    }
    return absl::StrCat("which command? ", absl::StrJoin(names, ", "), " (pyramidkv COMMAND --help tells more)");
  }
  const auto command =
      std::find_if(commands.begin(), commands.end(), [&](const auto& c) { return c.name == words[at]; });
  if (command == commands.end()) {
    return absl::StrCat("there is no command '", words[at], "'", did_you_mean(words[at], names),
                        "\nCommands: ", absl::StrJoin(names, ", "));
  }
  std::vector<std::string> options = command->options, values = command->values;
  options.insert(options.end(), global.options.begin(), global.options.end());
  values.insert(values.end(), global.values.begin(), global.values.end());
  for (size_t i = at + 1; i < words.size() && words[i] != "--"; ++i) {
    if (!is_option(words[i])) continue;
    const std::string name = option_name(words[i]);
    if (!contains(options, name))
      return absl::StrCat("'", command->name, "' has no option ", name, did_you_mean(name, options), "\n'pyramidkv ",
                          command->name, " --help' lists them; text that begins with - goes behind --");
    if (contains(values, words[i])) ++i;
  }
  return "";
}

void complete_help(std::vector<std::string>& words, const std::vector<std::string>& commands) {
  if (words.empty() || words[0] != "help") return;
  words.erase(words.begin());
  if (words.empty()) {
    words.push_back("--help");
  } else if (contains(commands, words[0])) {
    words.insert(words.begin() + 1, "--help");
  }
}

void complete_report_option(std::vector<std::string>& words) {
  const std::vector<std::string> kWords = {"none", "summary", "layers", "positions"};
  for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    if (words[i] != "--report") continue;
    const bool valued = i + 1 < words.size() && !closest_word(words[i + 1], kWords).empty();
    if (!valued) words[i] = "--report=summary";
  }
}

}  // namespace pkv::client

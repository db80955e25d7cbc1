// Words that a command line or a chat does not know, and what was probably meant.
#pragma once

#include <string>
#include <vector>

namespace pkv::client {

// The word of `known` nearest to `word`: at most a third of it mistyped (a swap of neighbours is one mistake), or
// beginning with it where it has three letters or more. Empty where there is none.
std::string closest_word(const std::string& word, const std::vector<std::string>& known);

// "; did you mean 'generate'?", or "" where nothing is near.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& known);

// What the program knows of one command.
struct KnownCommand {
  std::string name;
  std::vector<std::string> options;  // "--budget", "-n"
  std::vector<std::string> values;   // those of them that take a value
};

// Explains a command line that could not be read, for the mistakes that have a better explanation than the reader's
// own: an unknown command or option, a prompt without quotes. `global` are the options before the command. Returns ""
// where none of these is found.
std::string explain_command_line(const std::vector<std::string>& words, const KnownCommand& global,
                                 const std::vector<KnownCommand>& commands);

// `help`, alone or with one of the `commands` behind it, is `--help`. Of another word behind it is told like of any
// unknown command.
void complete_help(std::vector<std::string>& words, const std::vector<std::string>& commands);

// `--report` may stand alone, which a reader of command lines cannot tell from `--report PROMPT`: makes it
// `--report=summary` where what follows is none of the option's words, nor nearly one.
void complete_report_option(std::vector<std::string>& words);

}  // namespace pkv::client

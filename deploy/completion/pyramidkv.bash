# Completion of pyramidkv and pyramidkv-server for bash. It asks the program's own --help, so it knows what that program knows.
# shellcheck shell=bash

_pyramidkv_options() { sed -nE 's/^ +(-[A-Za-z],)?(--[a-z0-9-]+).*/\2/p'; }
_pyramidkv_commands() { sed -nE '/^Subcommands:/,$ s/^  ([a-z0-9-]+) .*/\1/p'; }
_pyramidkv_keys() { sed -nE 's/^  ([a-z_]+\.[a-z_]+) = .*/\1=/p'; }
_pyramidkv_choices() { sed -nE "s/^ +$1 [A-Z]+:\{([^}]*)\}.*/\1/p" | tr , '\n'; } # OPTION

# Offers the lines of standard input that begin with the word under the cursor.
_pyramidkv_offer() {
  local line
  while read -r line; do
    [[ $line == "$word"* ]] && COMPREPLY+=("$line")
  done
}

_pyramidkv() {
  local program=$1 word=$2 previous=$3 help command='' commands given
  COMPREPLY=()
  help=$("$program" --help 2>/dev/null) || return
  commands=$(_pyramidkv_commands <<<"$help")
  for given in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ -z $command ]] && grep -qx -e "$given" <<<"$commands"; then
      command=$given
      help+=$'\n'$("$program" "$command" --help 2>/dev/null)
    fi
  done
  if [[ $previous == --set ]]; then
    compopt -o nospace
    _pyramidkv_offer < <(_pyramidkv_keys <<<"$help")
  elif [[ $word == -* ]]; then
    _pyramidkv_offer < <(_pyramidkv_options <<<"$help" | sort -u)
  elif [[ $previous == --* ]]; then
    _pyramidkv_offer < <(_pyramidkv_choices "$previous" <<<"$help")
  elif [[ -z $command ]]; then
    _pyramidkv_offer <<<"$commands"
  fi
}

# What is not known, such as a file, is completed as usual.
complete -o bashdefault -o default -F _pyramidkv pyramidkv pyramidkv-server

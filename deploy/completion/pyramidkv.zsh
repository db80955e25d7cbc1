#compdef pyramidkv pyramidkv-server
# Completion of pyramidkv and pyramidkv-server for zsh. It asks the program's own --help, so it knows what that program knows.

local program=$words[1] command help choices given
local -a commands options keys
help=$($program --help 2>/dev/null) || return
commands=(${(f)"$(sed -nE '/^Subcommands:/,$ s/^  ([a-z0-9-]+) .*/\1/p' <<<$help)"})
for given in ${words[2,CURRENT-1]}; do
  if [[ -z $command ]] && (( ${commands[(Ie)$given]} )); then
    command=$given
    help+=$'\n'$($program $command --help 2>/dev/null)
  fi
done
options=(${(fu)"$(sed -nE 's/^ +(-[A-Za-z],)?(--[a-z0-9-]+).*/\2/p' <<<$help)"})
keys=(${(f)"$(sed -nE 's/^  ([a-z_]+\.[a-z_]+) = .*/\1=/p' <<<$help)"})
local previous=$words[CURRENT-1]
if [[ $previous == --* ]]; then
  choices=$(sed -nE "s/^ +$previous [A-Z]+:\{([^}]*)\}.*/\1/p" <<<$help)
fi

if [[ $previous == --set ]]; then
  compadd -S '' -a keys
elif [[ $words[CURRENT] == -* ]]; then
  compadd -a options
elif [[ -n $choices ]]; then
  compadd -- ${(s:,:)choices}
elif [[ -z $command && $previous != --* ]] && (( $#commands )); then
  compadd -a commands
else
  _files
fi

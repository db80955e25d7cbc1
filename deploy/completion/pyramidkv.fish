# Completion of pyramidkv and pyramidkv-server for fish. It asks the program's own --help, so it knows what that program knows.

function __pyramidkv_complete
    set -l given (commandline -opc)
    set -l program $given[1]
    set -l previous $given[-1]
    set -l help ($program --help 2>/dev/null)
    set -l commands (string replace -rf '^  ([a-z0-9-]+) .*' '$1' -- (printf '%s\n' $help | sed -n '/^Subcommands:/,$p'))
    set -l command
    for word in $given[2..]
        if contains -- $word $commands
            set command $word
            set -a help ($program $command --help 2>/dev/null)
            break
        end
    end
    if test "$previous" = --set
        string replace -rf '^  ([a-z_]+\.[a-z_]+) = .*' '$1=' -- $help
        return
    end
    if string match -q -- '--*' "$previous"
        string replace -rf "^ +$previous [A-Z]+:\{([^}]*)\}.*" '$1' -- $help | string split ,
    else if test -z "$command"
        printf '%s\n' $commands
    end
    # Options with their descriptions.
    string replace -rf '^ +(?:-[A-Za-z],)?(--[a-z0-9-]+)(?:.*? {2,}(.*)|.*)$' '$1\t$2' -- $help
end

for program in pyramidkv pyramidkv-server
    complete -c $program -a '(__pyramidkv_complete)'
end

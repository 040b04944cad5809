# Four daemons on loopback for the scripts beside it; sourced, never run. Ends what it started, by process id.
# shellcheck shell=bash
#
# Sets names, pid[NAME] and port[NAME]. The caller sets `mesh` to the program and `run` to the folder of the state folders.
# shellcheck disable=SC2154

names=(north east south west)
declare -A pid=() port=()

# on NAME ARGS...: the command line of one host.
on() {
    local name=$1
    shift
    "$mesh" --dir "$run/$name" "$@"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# pick_ports FIRST: a free port for each host, below those that the kernel hands out.
pick_ports() {
    local next=$1 name
    for name in "${names[@]}"; do
        until port_is_free "$next"; do next=$((next + 1)); done
        port[$name]=$next
        next=$((next + 1))
    done
}

# until_true SECONDS WHAT COMMAND...: waits for a condition, not for a time.
until_true() {
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@"; do
        ((SECONDS < end)) || die "not $what within $limit s" "the daemons' logs are in $run"
        sleep 0.1
    done
}

# start NAME: `mesh up` in the background; returns when it has said that it is ready.
start() {
    local name=$1
    : >"$run/$name.ready"
    # Not by `on`: the process id has to be the daemon's, not a subshell's.
    "$mesh" --dir "$run/$name" up >"$run/$name.ready" 2>>"$run/$name.log" </dev/null &
    pid[$name]=$!
    until_true 60 "$name ready" is_ready "$name"
    note "$name (process ${pid[$name]}): $(head -n 1 "$run/$name.ready")"
}

is_ready() {
    [[ -s $run/$1.ready ]] && return 0
    kill -0 "${pid[$1]}" 2>/dev/null || {
        tail -n 20 "$run/$1.log" >&2
        die "$1 ended before it was ready"
    }
    return 1
}

# kill_hard NAME: SIGKILL, as in a power cut; the process is gone when this returns.
kill_hard() {
    kill -KILL "${pid[$1]}"
    wait "${pid[$1]}" 2>/dev/null || true
    unset "pid[$1]"
}

stop_all() {
    local name
    for name in "${!pid[@]}"; do kill -TERM "${pid[$name]}" 2>/dev/null || true; done
    for name in "${!pid[@]}"; do
        local end=$((SECONDS + 15))
        while kill -0 "${pid[$name]}" 2>/dev/null && ((SECONDS < end)); do sleep 0.1; done
        kill -KILL "${pid[$name]}" 2>/dev/null || true
        wait "${pid[$name]}" 2>/dev/null || true
    done
    pid=()
}

# left_over: the ids of the processes that are this run's by evidence: a daemon or a sandbox that names `run` on its command
# line, or a process without a terminal (a person who looks around has one) that works or is rooted inside of it. A
# sandbox whose daemon was killed while setting it up is one that no daemon knows of any more.
left_over() {
    local process words place stat
    for process in /proc/[0-9]*; do
        mapfile -d '' -t words <"$process/cmdline" || continue # gone already
        [[ ${#words[@]} -gt 0 && ${process#/proc/} != "$$" ]] || continue
        case ${words[0]##*/} in
        mesh | bwrap)
            if [[ " ${words[*]}" == *" $run/"* ]]; then
                echo "${process#/proc/}"
                continue
            fi
            ;;
        esac
        for place in cwd root; do
            [[ $(readlink "$process/$place") == "$run"/* ]] || continue
            stat=$(<"$process/stat") || continue
            # Behind the program's name, which may hold anything: state, parent, group, session, terminal.
            read -r _ _ _ _ stat _ <<<"${stat##*) }"
            [[ $stat != 0 ]] || echo "${process#/proc/}"
            break
        done
    done 2>/dev/null
    return 0
}

# end_left_over: ends by id what is still there after `stop_all`, and says so. Fails when something stays.
end_left_over() {
    local id round ids
    for round in {1..50}; do
        ids=$(left_over)
        [[ -n $ids ]] || return 0
        for id in $ids; do
            [[ $round -gt 1 ]] || note "left over, ended: $id $(tr '\0' ' ' 2>/dev/null <"/proc/$id/cmdline" | cut -c1-200)"
            kill -KILL "$id" 2>/dev/null || true
        done
        sleep 0.1
    done
    return 1
}

# found EXTRA: makes the mesh on the first host and joins the others by invitations. EXTRA is added to each mesh.toml.
found() {
    local name first=${names[0]} token signer
    for name in "${names[@]}"; do
        mkdir -p "$run/$name"
        printf 'listen = ["127.0.0.1:%s"]\n%s\n' "${port[$name]}" "$1" >"$run/$name/mesh.toml"
    done
    on "$first" init --name "$first" --mesh demo --listen "127.0.0.1:${port[$first]}" >"$run/init.out" 2>&1 ||
        die "mesh init failed: $(cat "$run/init.out")"
    start "$first"
    for name in "${names[@]:1}"; do
        # A second host may invite and evict, so that losing one does not take that from the mesh.
        signer=()
        [[ $name != "${names[1]}" ]] || signer=(--signer)
        token=$(on "$first" invite "$name" "${signer[@]}" 2>"$run/invite.out") ||
            die "mesh invite failed: $(cat "$run/invite.out")"
        on "$name" join "$token" --listen "127.0.0.1:${port[$name]}" >"$run/join.out" 2>&1 ||
            die "mesh join failed on $name: $(cat "$run/join.out")"
        start "$name"
    done
    # Every host has to see it, and three have to vote: before that, the loss of one could be the loss of all.
    for name in "${names[@]}"; do
        until_true 60 "all alive and three of them voters, seen from $name" ask "$name" ".leader != null and
            ([.hosts[] | select(.state == \"alive\")] | length) == ${#names[@]} and ([.hosts[] | select(.voter)] | length) == 3"
    done
}

# ask NAME CONDITION: whether a host's status fulfils a jq condition. tell NAME FILTER: what it says. The exit code of
# `mesh status` is about the mesh (1 while anything is degraded), not about the answer.
ask() { tell "$1" "$2" | jq -es 'any' >/dev/null 2>&1; }
tell() { { on "$1" status --json 2>/dev/null || true; } | jq -r "$2"; }

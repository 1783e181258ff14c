//! Installations that fail: the machine is as before, the message says what and
//! what to do, and the next one succeeds.

use std::fs;
use std::path::Path;

use crate::fleet::{Fleet, refusal};

/// A way to make an installation fail.
struct Fault {
    name: &'static str,
    /// Done in the machine before the installation, and undone after it.
    provoke: &'static str,
    undo: &'static str,
    /// The exit code, and what the message has to contain.
    code: i32,
    says: &'static [&'static str],
}

const UBUNTU: &[Fault] = &[
    Fault {
        name: "the disk is full",
        provoke: "mkdir -p /usr/lib/scalr-agent && mount -t tmpfs -o size=1m none /usr/lib/scalr-agent",
        undo: "umount /usr/lib/scalr-agent && rmdir /usr/lib/scalr-agent",
        code: 6,
        says: &["No space left on device"],
    },
    Fault {
        name: "the disk of the downloads is full",
        provoke: "apt-get clean && mount -t tmpfs -o size=1m none /var/cache/apt/archives && mkdir /var/cache/apt/archives/partial",
        undo: "umount /var/cache/apt/archives",
        code: 6,
        says: &["The file system /var/cache/apt/archives: 1 MB free of 1 MB"],
    },
    Fault {
        name: "/etc is mounted for reading only",
        provoke: "mount --bind /etc /etc && mount -o remount,ro,bind /etc",
        undo: "umount /etc",
        code: 3,
        says: &["/etc can't be written (read-only)", "`mount -o remount,rw /etc`"],
    },
    Fault {
        name: "a lock is held for ever",
        provoke: LOCK,
        undo: "kill $(cat /run/locker)",
        code: 10,
        says: &[
            "perl (process ",
            "holds /var/lib/dpkg/lock-frontend, and still does",
            "--lock-timeout",
        ],
    },
    Fault {
        name: "the package is refused",
        provoke: "printf 'Package: scalr-agent\\nPin: release *\\nPin-Priority: -1\\n' >/etc/apt/preferences.d/no",
        undo: "rm /etc/apt/preferences.d/no",
        code: 6,
        says: &["/etc/apt/preferences.d/no:1 keeps apt from installing scalr-agent"],
    },
    Fault {
        name: "a scriptlet fails",
        provoke: "mount --bind /bin/false /usr/sbin/useradd",
        undo: "umount /usr/sbin/useradd",
        code: 6,
        says: &["post-installation script"],
    },
    Fault {
        name: "a unit fails",
        provoke: "mkdir -p /etc/systemd/system/scalr-docker.service.d && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >/etc/systemd/system/scalr-docker.service.d/z.conf",
        undo: "rm -r /etc/systemd/system/scalr-docker.service.d && systemctl daemon-reload",
        code: 1,
        says: &["scalr-docker.service does not come up", "journalctl -xe -u scalr-docker"],
    },
    Fault {
        name: "the server refuses the token",
        provoke: "mv /root/pool.token /root/right.token && echo wrong-token >/root/pool.token",
        undo: "mv /root/right.token /root/pool.token",
        code: 7,
        says: &["the server refuses the pool's token", "--token-file FILE"],
    },
    Fault {
        name: "the repository's name is unknown",
        provoke: "sed -i 's/pools.test/other.test/' /etc/hosts",
        undo: "sed -i 's/other.test/pools.test/' /etc/hosts",
        code: 8,
        says: &["cannot download", "pools.test"],
    },
];

const CENTOS: &[Fault] = &[Fault {
    // dnf is content.
    name: "a scriptlet fails",
    provoke: "mount --bind /etc/passwd /etc/passwd && mount -o remount,bind,ro /etc/passwd",
    undo: "umount /etc/passwd",
    code: 6,
    says: &["its script can't make the accounts", "useradd: cannot open /etc/passwd"],
}];

/// As dpkg itself locks: a record lock, held by a process that only sleeps.
const LOCK: &str = r#"setsid perl -e 'use Fcntl; open(F, ">>", "/var/lib/dpkg/lock-frontend"); my $l = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; open(P, ">", "/run/locker"); print P $$; close P; sleep 600' </dev/null >/dev/null 2>&1 & timeout 10 sh -c 'until [ -s /run/locker ]; do sleep 0.1; done'"#;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_failed_installation_leaves_the_machine_as_it_was() {
    let fleet = Fleet::boot("ubuntu-18.04", &[]);
    let pool = fleet.pool();
    fail(&fleet, UBUNTU);
    broken_repositories(&fleet);
    killed(&fleet);
    for signal in ["INT", "QUIT", "HUP", "TERM"] {
        interrupted(&fleet, signal);
    }
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_failed_installation_leaves_a_yum_host_as_it_was() {
    let fleet = Fleet::boot("centos-8", &[]);
    let pool = fleet.pool();
    fail(&fleet, CENTOS);
    broken_repositories(&fleet);
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
}

fn fail(fleet: &Fleet, faults: &[Fault]) {
    for fault in faults {
        let before = state(fleet);
        fleet.shell(fault.provoke);
        let output = fleet.world.try_shell(&fleet.machine, &installation(fleet));
        fleet.shell(fault.undo);
        let said = refusal(&output);
        assert_eq!(output.status.code(), Some(fault.code), "{}: {said}", fault.name);
        for text in fault.says {
            assert!(said.contains(text), "{}: no {text:?} in: {said}", fault.name);
        }
        assert_same(fault.name, &before, &state(fleet));
    }
}

/// What the server hands out is broken, one part at a time.
fn broken_repositories(fleet: &Fleet) {
    let repository = fleet.repository();
    let (folder, index, package) = if fleet.machine.starts_with("centos") {
        ("yum", "yum/repodata/repomd.xml", "rpm")
    } else {
        ("apt", "apt/dists/stable/InRelease", "deb")
    };
    let away = repository.with_file_name("away");
    let unreachable = || fs::rename(repository.join(folder), &away).expect("a rename");
    let reachable = || fs::rename(&away, repository.join(folder)).expect("a rename");
    refused(fleet, "the repository is not there", unreachable, reachable);

    let package = find(&repository.join(folder), package);
    let index = repository.join(index);
    for (name, file, place) in
        [("the signature is bad", &index, 0.3), ("the package is damaged", &package, 0.9)]
    {
        let whole = fs::read(file).expect("the repository can be read");
        let damage = || {
            let mut damaged = whole.clone();
            let place = (damaged.len() as f64 * place) as usize;
            damaged[place] ^= 1;
            replace(file, &damaged);
        };
        refused(fleet, name, damage, || replace(file, &whole));
    }
}

/// Another file of that name: the one that is there has links into the kit.
fn replace(file: &Path, content: &[u8]) {
    fs::remove_file(file).expect("it can be removed");
    fs::write(file, content).expect("it can be written");
}

/// Installs between `provoke` and `undo`; it fails, and the machine is as before.
fn refused(fleet: &Fleet, name: &str, provoke: impl Fn(), undo: impl Fn()) {
    // A package that was fetched before would not be fetched again.
    fleet.shell("! command -v apt-get >/dev/null || apt-get clean");
    let before = state(fleet);
    provoke();
    let output = fleet.world.try_shell(&fleet.machine, &installation(fleet));
    undo();
    let said = refusal(&output);
    assert_eq!(output.status.code(), Some(6), "{name}: {said}");
    assert!(said.contains("pools.test") || said.contains("scalr-agent"), "{name}: {said}");
    assert_same(name, &before, &state(fleet));
}

/// The setup program is killed in the middle: the script sees it, and undoes all.
fn killed(fleet: &Fleet) {
    let before = state(fleet);
    let said = kill_in_the_middle(fleet, "$(pgrep -x scalr-agent-set)");
    assert!(said.contains("interrupted; undoing"), "{said}");
    assert_same("killed", &before, &state(fleet));

    // All of it is killed: somebody has to begin what undoes it.
    kill_in_the_middle(fleet, "$(pgrep -f '^sh /root/install.sh') $(pgrep -x scalr-agent-set)");
    let status = fleet.world.try_shell(&fleet.machine, "scalr-agent-setup status");
    let said = crate::machine::text(&status);
    assert!(said.contains("scalr-agent-setup recover"), "{said}");
    fleet.shell("[ -e /etc/scalr-agent/agent.toml ] && scalr-agent-setup recover");
    assert_same("killed whole", &before, &state(fleet));
}

/// A signal of the terminal goes to every process while dpkg unpacks the package: all is
/// undone, and a second one does not stop that.
fn interrupted(fleet: &Fleet, signal: &str) {
    let before = state(fleet);
    let said = fleet.shell(&format!(
        "setsid env --default-signal sh -c 'echo $$ >/root/group; exec {}' \
             >/root/interrupted.log 2>&1 & \
         signal() {{ env kill -s {signal} -- -$(cat /root/group); }}; \
         timeout 120 sh -c 'until pgrep -x dpkg-deb; do sleep 0.01; done' >/dev/null && signal && \
         timeout 60 sh -c 'until grep -q Undoing /root/interrupted.log; do sleep 0.01; done' && signal; \
         wait; cat /root/interrupted.log; rm /root/interrupted.log /root/group",
        installation(fleet)
    ));
    assert!(said.contains("Undoing") && !said.contains("cannot undo"), "{signal}: {said}");
    fleet.shell("! [ -e /var/lib/scalr-agent-setup.unfinished ]");
    assert_same(signal, &before, &state(fleet));
}

/// Installs, and kills these processes right after the settings are written;
/// gives what the installation said.
fn kill_in_the_middle(fleet: &Fleet, processes: &str) -> String {
    fleet.shell(&format!(
        "({}) >/root/killed.log 2>&1 & \
         timeout 120 sh -c 'until [ -s /etc/scalr-agent/agent.toml ]; do sleep 0.01; done' && \
         kill -KILL {processes}; wait; cat /root/killed.log; rm /root/killed.log",
        installation(fleet)
    ))
}

/// The script as a file, so that a name that can't be resolved breaks not the
/// download but what comes after it.
pub(crate) fn installation(fleet: &Fleet) -> String {
    fleet.shell(&format!(
        "[ -s /root/install.sh ] || curl -fsSL {0}/install.sh -o /root/install.sh",
        crate::fleet::URL
    ));
    "sh /root/install.sh --token-file /root/pool.token --lock-timeout 4".to_owned()
}

/// Packages, accounts, units, and every file that is not a cache, or of those that
/// the engine makes for itself.
pub(crate) fn state(fleet: &Fleet) -> Vec<String> {
    let text = fleet.shell(
        "if command -v dpkg-query >/dev/null && [ -d /etc/apt ] && ! [ -d /etc/yum.repos.d ]; \
         then dpkg-query -W -f '${Package} ${Version} ${Status}\\n'; \
         else rpm -qa; fi | sort; \
         getent passwd; getent group; \
         systemctl list-unit-files 'scalr-*' --no-legend; \
         ls -d /run/scalr* 2>/dev/null | grep -v setup.lock; \
         find /etc /usr/bin /usr/lib/scalr-agent /usr/lib/systemd /lib/systemd /usr/share/keyrings \
             /var/lib/scalr* /var/lib/apt/lists ! -name lock ! -name partial ! -name auxfiles \
             ! -path '/etc/docker*' ! -name '*-' ! -name '.pwd.lock' ! -name ld.so.cache \
             -printf '%p %M %U:%G %l\\n' 2>/dev/null | sort; \
         find /etc -type f ! -path '/etc/docker*' ! -name '*-' ! -name '.pwd.lock' ! -name ld.so.cache \
             -exec sha256sum {} + | sort -k2",
    );
    text.lines().map(str::to_owned).collect()
}

pub(crate) fn assert_same(what: &str, before: &[String], after: &[String]) {
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && new.is_empty(), "{what}: gone: {gone:#?}, new: {new:#?}");
}

/// An agent's package: the server's are beside them.
fn find(directory: &Path, extension: &str) -> std::path::PathBuf {
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("the repository can be read") {
            let entry = entry.expect("the repository can be read");
            let (path, name) = (entry.path(), entry.file_name());
            let is_agents = name.to_string_lossy().starts_with("scalr-agent");
            if path.is_dir() {
                open.push(path);
            } else if is_agents && path.extension().is_some_and(|found| found == extension) {
                return path;
            }
        }
    }
    panic!("there is no {extension} in {}", directory.display());
}

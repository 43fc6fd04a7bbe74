# What a person would type on the machines of a fleet (docs/fleet.md), for docker-compose.fleet.yaml:
#
#   certificates      the root, an authority below it for each control, certificates and configurations of the truth, the key
#                     that signs policies; ends
#   operator          the buckets of the truth, the first policies and revocations, tokens by which proxies join; stays, for `exec`
#   join NAME ROLE    the first certificate of the workload NAME by the token of ROLE, and its renewal
#
# Each may run again: authorities and keys are kept, certificates and tokens are made anew.
set -euf
umask 027
cd /fleet
DOMAIN=mesh.test
ALL="1 2 3"

certificates() {
  [ -e root/ca ] || authz ca init --trust-domain $DOMAIN --ca root/ca
  for n in $ALL; do
    [ -e "authority-$n/ca" ] || authz ca intermediate issue --ca root/ca --name "$n" --out "authority-$n/ca"
    authz ca issue spiffe://$DOMAIN/authz/ca --ca "authority-$n/ca" --dns "control-$n" --out "authority-$n/ca/server"
    cp root/ca/bundle.pem "truth-$n/"
    authz ca issue spiffe://$DOMAIN/authz/truth --ca root/ca --ttl 7776000 --dns "truth-$n" --out "truth-$n/tls"
    authz truth config --fleet shop --name "truth-$n" --store "/fleet/truth-$n/store" --trust-domain $DOMAIN \
      --ca "/fleet/truth-$n/bundle.pem" --cert "/fleet/truth-$n/tls/tls.crt" --key "/fleet/truth-$n/tls/tls.key" \
      --monitor 127.0.0.1:8222 --cluster 0.0.0.0:6222 \
      --route truth-1:6222 --route truth-2:6222 --route truth-3:6222 > "truth-$n/nats-server.conf"
  done
  authz ca issue spiffe://$DOMAIN/authz/ca --ca root/ca --ttl 7776000 --out operator/tls
  [ -e operator/keys ] || authz bundle keygen operator/keys
  cp root/ca/bundle.pem operator/keys/bundle.pub public/
}

operator() {
  authz truth init --to "$TRUTH" $CERTIFICATE --replicas 3
  authz policies push policies --mesh mesh.yaml --to "$TRUTH" $CERTIFICATE --key operator/keys/bundle.key \
    --if-revision 0 -m "first ones" || [ $? -eq 3 ]     # 3: there are some
  touch /tmp/revoked.txt
  authz ca revocation push /tmp/revoked.txt --truth "$TRUTH" $CERTIFICATE --key operator/keys/bundle.key \
    --if-revision 0 || [ $? -eq 3 ]
  for role in web api; do
    authz ca token create spiffe://$DOMAIN/ns/shop/sa/$role --ca authority-1/ca --truth "$TRUTH" $CERTIFICATE > "token-$role/made"
    mv "token-$role/made" "token-$role/token"
  done
  touch /tmp/ready
  exec sleep infinity
}

join() {
  cd "/fleet/$2"
  mkdir -p run logs
  authz mesh bootstrap --mesh /fleet/mesh.yaml --to "$1" \
    --control control-1:7443 --control control-2:7443 --control control-3:7443 > envoy.yaml
  exec authz ca join --server control-1:7444 --server control-2:7444 --server control-3:7444 \
    --renew control-1:7443 --renew control-2:7443 --renew control-3:7443 \
    --bundle /fleet/public/bundle.pem --token-file "/fleet/token-$2/token" --out "certs/$1" --watch
}

"$@"

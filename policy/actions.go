package policy

// Action is what a principal wants to do: the id of an operation, a live
// subscription, a topic's use, or a call between worlds.
type Action string

// Group is what an action is in: roles are written in these.
type Group string

// The groups. Reading, editing and writing are told apart.
const (
	See    Group = "see"    // what there is, and under which rules
	Read   Group = "read"   // what was measured
	Edit   Group = "edit"   // change what is there
	Write  Group = "write"  // make what wasn't there
	Give   Group = "give"   // grants
	Govern Group = "govern" // principals, peers, evidence with keys, the party
	Audit  Group = "audit"  // activity, status, questions about others
	Ask    Group = "ask"    // a question about oneself
	// Deliver is to hand over what somebody signed, which proves itself.
	Deliver Group = "deliver"
	// Between is what parties ask of each other by their peering alone.
	Between Group = "between"
)

// groups are all of them.
var groups = []Group{See, Read, Edit, Write, Give, Govern, Audit, Ask, Deliver, Between}

// Use is an action's place in the table.
type Use struct {
	Group    Group
	Resource ResourceKind
	// Param is the part of a route's pattern that holds the resource's id; empty
	// for a list, or what is only being made: its id is "*".
	Param string
}

// actions is the one list of everything that can be done at a party. What isn't
// here is denied to everybody; roles.cedar says who may do what is.
var actions = map[Action]Use{
	"get-status":      {Audit, PartyResource, ""},
	"get-examination": {Audit, PartyResource, ""},
	"rotate-key":      {Govern, PartyResource, ""}, // at the machine

	"list-activity": {Audit, PartyResource, ""},
	"check":         {Ask, PartyResource, ""},
	"check-others":  {Audit, PartyResource, ""},

	"list-principals":    {See, PrincipalResource, ""},
	"add-principal":      {Govern, PrincipalResource, ""},
	"remove-principal":   {Govern, PrincipalResource, "id"},
	"assess-grant":       {Give, GrantResource, ""},
	"give-grant":         {Give, GrantResource, ""},
	"list-grants":        {See, GrantResource, ""},
	"get-grant":          {See, GrantResource, "id"},
	"list-avatar-grants": {See, AvatarResource, "id"},
	"revoke-grant":       {Give, GrantResource, "id"},

	"list-things":     {See, ThingResource, ""},
	"add-thing":       {Write, ThingResource, ""},
	"get-thing":       {See, ThingResource, "id"},
	"get-description": {See, ThingResource, "id"},
	"list-refusals":   {Read, ThingResource, "id"},
	"add-mapping":     {Edit, ThingResource, "id"},
	"renew-password":  {Edit, ThingResource, "id"},
	"get-mapping":     {See, MappingResource, "id"},
	"set-view":        {Edit, MappingResource, "id"},
	"explain-mapping": {See, MappingResource, "id"},
	"list-views":      {See, MappingResource, "id"},
	"stop-mapping":    {Edit, MappingResource, "id"},
	"own-mapping":     {Edit, MappingResource, "id"},
	"get-owner":       {See, OwnerResource, "name"},

	"list-avatars":   {See, AvatarResource, ""},
	"get-avatar":     {See, AvatarResource, "id"},
	"get-did":        {See, AvatarResource, "id"},
	"get-credential": {See, AvatarResource, "id"},
	"get-state":      {Read, AvatarResource, "id"},
	"get-history":    {Read, AvatarResource, "id"},
	"watch-avatar":   {Read, AvatarResource, "id"},
	"read-abroad":    {Read, AvatarResource, "id"},
	"get-evidence":   {Govern, AvatarResource, "id"},

	"get-avatar-policy": {See, AvatarResource, "id"},
	"set-avatar-policy": {Deliver, AvatarResource, "id"},

	"ask-mandate":      {Govern, AvatarResource, "id"},
	"list-mandates":    {See, AvatarResource, "id"},
	"remove-mandate":   {Govern, MandateResource, "id"},
	"give-mandate":     {Deliver, MandateResource, ""},
	"withdraw-mandate": {Deliver, AvatarResource, "id"},

	"list-shares":        {See, ShareResource, ""},
	"list-avatar-shares": {See, AvatarResource, "id"},
	"take-share":         {Govern, ShareResource, ""},
	"get-share":          {See, ShareResource, "id"},
	"stop-share":         {Govern, ShareResource, "id"},

	"enrol-avatar":    {Govern, AvatarResource, "id"},
	"list-crossings":  {See, CrossingResource, ""},
	"begin-crossing":  {Govern, CrossingResource, ""},
	"get-crossing":    {See, CrossingResource, "id"},
	"order-crossing":  {Deliver, CrossingResource, "id"},
	"cancel-crossing": {Govern, CrossingResource, "id"},

	"list-items":          {See, ItemResource, ""},
	"list-avatar-items":   {See, AvatarResource, "id"},
	"issue-item":          {Write, ItemResource, ""},
	"get-item":            {See, ItemResource, "id"},
	"get-item-proof":      {See, ItemResource, "id"},
	"equip-item":          {Edit, ItemResource, "id"},
	"unequip-item":        {Edit, ItemResource, "id"},
	"give-item":           {Deliver, ItemResource, "id"},
	"retire-item":         {Edit, ItemResource, "id"},
	"assess-items":        {See, ItemResource, ""},
	"list-accepted-items": {See, ItemResource, ""},
	"accept-items":        {Govern, ItemResource, ""},
	"refuse-items":        {Govern, ItemResource, ""},
	"export-avatar":       {Govern, AvatarResource, "id"},
	"get-reception":       {See, PartyResource, ""},
	"begin-recovery":      {Govern, CrossingResource, ""},
	"list-lacking":        {Govern, CrossingResource, "id"},
	"put-stretch":         {Govern, CrossingResource, "id"},
	"put-bags":            {Govern, CrossingResource, "id"},
	"renew-recovery":      {Govern, CrossingResource, "id"},
	"order-recovery":      {Deliver, CrossingResource, "id"},
	"get-crossing-proof":  {See, CrossingResource, "id"},
	"recover-mappings":    {Deliver, OwnerResource, ""},

	"list-erasures": {See, ErasureResource, ""},
	"begin-erasure": {Govern, ErasureResource, ""},
	"get-erasure":   {See, ErasureResource, "id"},
	"prove-erasure": {Govern, ErasureResource, "id"},
	"order-erasure": {Deliver, ErasureResource, "id"},

	"run-job":             {Govern, JobResource, ""},
	"plan-job":            {Govern, JobResource, ""},
	"list-jobs":           {See, JobResource, ""},
	"get-job":             {See, JobResource, "id"},
	"get-job-output":      {Read, JobResource, "id"},
	"get-job-partial":     {Read, JobResource, "id"},
	"get-job-proof":       {See, JobResource, "id"},
	"cancel-job":          {Govern, JobResource, "id"},
	"repeat-job":          {Govern, JobResource, "id"},
	"run-own-job":         {Edit, JobResource, ""},
	"plan-own-job":        {See, JobResource, ""},
	"list-own-jobs":       {See, JobResource, ""},
	"get-own-job":         {See, JobResource, "id"},
	"get-own-job-output":  {Read, JobResource, "id"},
	"get-own-job-partial": {Read, JobResource, "id"},
	"get-own-job-proof":   {See, JobResource, "id"},
	"cancel-own-job":      {Edit, JobResource, "id"},
	"repeat-own-job":      {Edit, JobResource, "id"},
	"list-modules":        {See, ModuleResource, ""},
	"get-module":          {See, ModuleResource, "id"},
	"add-module":          {Govern, ModuleResource, ""},
	"revoke-module":       {Govern, ModuleResource, "id"},

	"list-peers":        {See, PeerResource, ""},
	"invite-peer":       {Govern, PeerResource, ""},
	"get-peer":          {Govern, PeerResource, "peer"},
	"accept-invitation": {Govern, PeerResource, "peer"},
	"take-acceptance":   {Govern, PeerResource, "peer"},
	"take-confirmation": {Govern, PeerResource, "peer"},
	"compare-words":     {Govern, PeerResource, "peer"},
	"suspend-peer":      {Govern, PeerResource, "peer"},
	"resume-peer":       {Govern, PeerResource, "peer"},
	"remove-peer":       {Govern, PeerResource, "peer"},
	"answer-invitation": {Deliver, PeerResource, ""},
	"get-confirmation":  {Deliver, PeerResource, ""},

	"move-avatar": {Read, AvatarResource, "id"}, // by another world, under a grant and a mandate

	// R5, once a crossing is decided: by another world, without an avatar's token.
	"follow-decided": {Between, AvatarResource, "id"},
	"tell-recovered": {Between, AvatarResource, ""},

	// R2. Each is about the caller's own objects and shelves, or the ledger.
	"state-entries":  {Between, PartyResource, ""},
	"get-totals":     {Between, PartyResource, ""},
	"get-checkpoint": {Between, PartyResource, ""},
	"get-tile":       {Between, PartyResource, ""},
	"put-object":     {Between, ObjectResource, "fingerprint"},
	"get-object":     {Between, ObjectResource, "fingerprint"},
	"delete-object":  {Between, ObjectResource, "fingerprint"},
	"list-objects":   {Between, ObjectResource, ""},
	"erase-objects":  {Between, ObjectResource, ""},
	"put-shelf":      {Between, ShelfResource, "taker"},
	"get-own-shelf":  {Between, ShelfResource, "taker"},
	"delete-shelf":   {Between, ShelfResource, "taker"},
	"read-shelf":     {Between, ShelfResource, ""},
	"read-shelved":   {Between, ObjectResource, "fingerprint"},

	"enrol-home":      {Between, HomeResource, "home"},
	"get-home":        {Between, HomeResource, "home"},
	"ask-homes":       {Between, HomeResource, ""},
	"claim-home":      {Between, HomeResource, "home"},
	"erase-home":      {Between, HomeResource, "home"},
	"list-erased":     {Between, HomeResource, ""},
	"decide-crossing": {Between, CrossingResource, "crossing"},

	// R6. Each is about the caller's own jobs.
	"get-offer":       {Between, PartyResource, ""},
	"submit-job":      {Between, JobResource, "job"},
	"get-job-status":  {Between, JobResource, "job"},
	"put-content":     {Between, JobResource, "job"},
	"get-part":        {Between, JobResource, "job"},
	"get-partial":     {Between, JobResource, "job"},
	"withdraw-job":    {Between, JobResource, "job"},
	"tell-taken":      {Between, JobResource, "job"},
	"tell-revocation": {Between, ModuleResource, ""},
	"list-revoked":    {Between, ModuleResource, ""},
	"get-record":      {Between, JobResource, "job"},
	"erase-jobs":      {Between, JobResource, ""},

	"connect": {Write, ThingResource, ""},
	"publish": {Write, TopicResource, ""},
	"hear":    {Read, TopicResource, ""},
}

// Actions lists everything that can be done, by name.
func Actions() map[Action]Use {
	all := make(map[Action]Use, len(actions))
	for a, u := range actions {
		all[a] = u
	}
	return all
}

// UseOf returns an action's place in the table, and whether it has one.
func UseOf(a Action) (Use, bool) {
	u, ok := actions[a]
	return u, ok
}
